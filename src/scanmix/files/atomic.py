"""Atomic writes: write to a part file, flush it, rename it; a file is then old or new, never half.

Part files that a killed process left are removed by the next write.
"""

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
"""Hash of the name of this machine, in the names of part files: in a shared folder, process numbers of other machines
mean nothing here."""


def aside_of(path: Path) -> Path:
    """Return the part file to which this process writes before it becomes `path`: `NAME.PID-HOST.part` beside it."""
    return path.with_name(f"{path.name}.{os.getpid()}-{HOST}.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the block a part file to write to; when the block ends, it is flushed to the disk and renamed to `path`.

    If the block fails, `path` stays as it was. Part files of dead processes for the same path are removed.

    Raises:
        CannotWrite: the disk is full, a limit is reached, or writing is not permitted.
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
        with suppress(OSError):  # an error from before is the one to report
            aside.unlink(missing_ok=True)


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a part file beside `path`, flush it to the disk and rename it to `path`.

    Raises:
        CannotWrite: as `replacing`.
    """
    with replacing(path) as aside, writing(path):
        write(aside)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 atomically, without changing its line ends.

    Raises:
        CannotWrite: as `replacing`.
    """
    atomic_write(path, lambda aside: aside.write_bytes(text.encode()))


def append_text(path: Path, text: str) -> None:
    """Append a text to a file and flush it to the disk; if that fails, the file is cut back to what it was.

    Raises:
        CannotWrite: as `replacing`.
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
    """Delete the part files and part folders that dead processes of this machine left.

    Other files, and part files of living processes and of other machines, stay.

    Args:
        folder: where to look; it need not exist.
        names: regular expressions for the names of the finished files.
    """
    pattern = re.compile(rf"\.?(?:{'|'.join(names)})\.(\d+)(?:-([0-9a-f]{{8}}))?(?:\.part)?")
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        found = pattern.fullmatch(path.name)
        if found is None or not (path.name.endswith(".part") or path.name.startswith(".")):
            continue
        if found[2] in (None, HOST) and not is_alive(int(found[1])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine; True if that cannot be known."""
    if sys.platform == "win32":  # there, no signal can check a process without harm
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return pid > 0
