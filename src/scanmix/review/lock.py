"""One server for a run: a lock that the system itself releases when its process ends, however it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scanmix.config import UserError

LOCK = "review.lock"


@contextmanager
def only_one(folder: Path, url: str) -> Iterator[None]:
    """Hold the lock of a run folder; what a dead process left there is taken over.

    Raises:
        UserError: a living process holds it; says which, and where its page is.
    """
    with open(folder / LOCK, "a+", encoding="utf-8", opener=_private) as file:
        if not _taken(file):
            file.seek(0)
            raise UserError(f"{folder} is under review already: {file.read().strip()}; use that page or stop it first")
        file.truncate(0)
        file.write(f"process {os.getpid()} at {url}\n")
        file.flush()
        yield
        file.truncate(0)


def _private(path: str, flags: int) -> int:
    """Open for this user alone: the address holds the token."""
    return os.open(path, flags, 0o600)


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
    except OSError:
        return False
    return True
