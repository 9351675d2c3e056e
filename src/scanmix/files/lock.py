"""One writer in a folder: a lock that the system itself releases when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from scanmix.config import UserError

LOCK = "run.lock"
PAUSE = 0.05
UNKNOWN = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""What a file system answers that knows no locks."""


@contextmanager
def locked(
    folder: Path, work: str, name: str = LOCK, at: str = "", busy: str = "wait for it or stop it",
    patience: float = 0.0,
) -> Iterator[None]:  # fmt: skip
    """Hold the lock of an existing folder while the block runs; that of a dead process stops nobody.

    The lock is advisory: it keeps out those who ask for it. Where the file system knows no locks, or the folder
    cannot be written to, nobody is kept out.

    Args:
        folder: what is locked.
        work: what is done with it, "in training", for whoever is refused.
        name: of the file that holds the lock; who holds it stands in it, for its owner's eyes.
        at: where the holder is to be found.
        busy: what the refused one can do.
        patience: seconds to wait for a holder that is soon done.

    Raises:
        UserError: a living process holds it; says which, since when and for what.
    """
    path = folder / name
    file = _locked(path, folder, busy, time.monotonic() + patience)
    if file is None:
        yield
        return
    with file:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        place = f" at {at}" if at else ""
        holder = f"{work} already: process {os.getpid()}{place}, on {platform.node()} since {since}\n"
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), holder.encode())  # nothing stays in a buffer, to fail when the file is closed
        try:
            yield
        finally:
            if sys.platform != "win32":  # Windows removes no open file; an empty one does no harm
                path.unlink(missing_ok=True)


def _locked(path: Path, folder: Path, busy: str, until: float) -> IO[str] | None:
    """Open and lock a file; None where it cannot be opened for writing."""
    while True:
        try:
            file = open(path, "a+", encoding="utf-8", errors="replace", opener=_private)
        except OSError:  # a folder that cannot be written: the first write will say so
            return None
        if not _taken(file):
            with file:
                file.seek(0)
                holder = file.read().strip() or "in use by another process"
            if time.monotonic() >= until:
                raise UserError(f"{folder} is {holder}; {busy}")
            time.sleep(PAUSE)
        elif _is_there(file, path):
            return file
        else:
            file.close()  # its last holder has just removed it


def _private(path: str, flags: int) -> int:
    """Open for this user alone: the address of a review holds its token."""
    return os.open(path, flags, 0o600)


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _taken(file: IO[str]) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # Windows keeps others from reading what is locked: lock far behind the text
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in UNKNOWN
    return True
