"""A lock for one writer in a folder, which the system releases when the process ends, however it ends."""

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
"""Seconds between two tries."""
UNKNOWN = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""Error numbers of file systems without locks."""


@contextmanager
def locked(
    folder: Path, work: str, name: str = LOCK, at: str = "", busy: str = "wait for it or stop it",
    patience: float = 0.0,
) -> Iterator[None]:  # fmt: skip
    """Hold the lock of an existing folder while the block runs; the lock of a dead process is free.

    The lock is advisory: it stops only processes that ask for it. On a file system without locks, or if the folder
    cannot be written to, it stops nobody.

    Args:
        folder: the folder to lock.
        work: what the holder does, such as "in training", for the error of a process that is refused.
        name: name of the lock file; it names the holder and is readable by its owner only.
        at: an address of the holder, for that error.
        busy: what a refused user can do, for that error.
        patience: seconds to wait for the lock.

    Raises:
        UserError: a living process holds the lock; says which, since when and for what.
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
        with suppress(OSError):  # on a full disk the lock holds without the text
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), holder.encode())  # unbuffered, so that closing the file cannot fail
        try:
            yield
        finally:
            if sys.platform != "win32":  # Windows cannot remove an open file; leaving it does no harm
                path.unlink(missing_ok=True)


def _locked(path: Path, folder: Path, busy: str, until: float) -> IO[str] | None:
    """Open and lock a file; None if it cannot be opened for writing."""
    while True:
        try:
            file = open(path, "a+", encoding="utf-8", errors="replace", opener=_private)
        except OSError:  # the first write to the folder will report this
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
            file.close()  # its last holder has just removed it: try again


def _private(path: str, flags: int) -> int:
    """Open a file that only this user can read, because the address of a review contains its token."""
    return os.open(path, flags, 0o600)


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _taken(file: IO[str]) -> bool:
    """Try to lock an open file; True if that worked, or if the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # on Windows, locked bytes cannot be read: lock one far behind the text
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in UNKNOWN
    return True
