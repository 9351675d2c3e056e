"""Written aside, flushed, renamed: a file is old or new, never half. What a killed process left aside is removed."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scanmix.files.errors import writing

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""This machine, in the names of part files: on a shared folder the process numbers of another say nothing here."""


def aside_of(path: Path) -> Path:
    """Return where this process writes what will be `path`: `NAME.PID-HOST.part` beside it."""
    return path.with_name(f"{path.name}.{os.getpid()}-{HOST}.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out the file to write to; when the block ends it is flushed to the disk and becomes `path`.

    Where the block fails, `path` is as it was. What a dead process left of an earlier try is removed.

    Raises:
        CannotWrite: a full disk, a limit, or no right to write.
    """
    aside = aside_of(path)
    with writing(path):
        remove_leftovers(path.parent, [re.escape(path.name)])
    try:
        yield aside
        with writing(path):
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            aside.replace(path)
    finally:
        with suppress(OSError):  # what went wrong before is what is told
            aside.unlink(missing_ok=True)


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a file beside `path`, flush it to the disk, then rename: `path` is old or new, never half.

    Raises:
        CannotWrite: as `replacing`.
    """
    with replacing(path) as aside, writing(path):
        write(aside)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 as `atomic_write` does, line ends as they are in `text`.

    Raises:
        CannotWrite: as `atomic_write`.
    """
    atomic_write(path, lambda aside: aside.write_bytes(text.encode()))


def append_text(path: Path, text: str) -> None:
    """Add to the end of a file and flush it to the disk; where that fails, the file is left as it was.

    Raises:
        CannotWrite: a full disk, a limit, or no right to write.
    """
    with writing(path), path.open("ab") as file:
        before = file.tell()
        try:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(path, before)
            raise


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete part files of dead processes of this machine: those of the files called as one of the patterns `names`.

    Part folders, which an export leaves, too. Everything else stays: files of others, of living processes and of
    other machines.
    """
    pattern = re.compile(rf"\.?(?:{'|'.join(names)})\.(\d+)(?:-([0-9a-f]{{8}}))?(?:\.part)?")
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        found = pattern.fullmatch(path.name)
        if found is None or not (path.name.endswith(".part") or path.name.startswith(".")):
            continue
        if found[2] in (None, HOST) and not is_alive(int(found[1])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine; in doubt it does."""
    if sys.platform == "win32":  # no signal asks there without harm
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return pid > 0
