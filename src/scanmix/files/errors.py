"""Errors of files as one sentence: all failures of reading and writing are translated here."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanmix.config import UserError

SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers that free space on the disk solves."""
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class CannotWrite(UserError):
    """A file could not be written; what was there before is still there."""


def check_regular(path: str | Path) -> None:
    """Check that `path` is a regular file: opening a pipe or a device may wait for ever.

    Raises:
        UserError: `path` is a folder, a pipe, a socket or a device.
        OSError: `path` does not exist, or access is not permitted.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path} is {kind}; a file is needed")


@contextmanager
def reading(path: str | Path, fix: str = "", error: type[UserError] = UserError) -> Iterator[None]:
    """Read and parse one file in the block: any error there becomes one sentence with the path.

    Put only code that reads the content of the file into the block, because every failure is blamed on the file. A
    `UserError` of the block is raised with the path in front, unless it names the path already.

    Args:
        path: the file; a pipe or a device is refused before it is opened.
        fix: what to do about a damaged file: "delete it and ...".
        error: the type of error to raise.

    Raises:
        UserError: of the type `error`; the file is missing, cannot be read or is damaged.
    """
    hint = f"; {fix}" if fix else ""
    try:
        check_regular(path)
        yield
    except UserError as failure:
        if str(path) in str(failure):
            raise
        raise error(f"{path}: {failure}") from failure
    except FileNotFoundError:
        raise error(f"{path}: no such file{hint}") from None
    except OSError as failure:
        raise error(f"{path} cannot be read: {failure.strerror or failure}{hint}") from failure
    except MemoryError as failure:
        raise error(f"{path} asks for more memory than there is{hint}") from failure
    except Exception as failure:  # parsers raise errors of any type on damaged content
        raise error(f"{path} is damaged and cannot be read ({in_words(failure)}){hint}") from failure


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Write one file in the block: a full disk, a limit or a missing permission becomes one sentence with the path.

    Raises:
        CannotWrite: the file could not be written; says how to go on.
    """
    try:
        yield
    except OSError as failure:
        room = "; free some space, then give the same command again" if failure.errno in SPACE else ""
        raise CannotWrite(f"{path} cannot be written: {failure.strerror or failure}{room}") from failure
    except Exception as failure:
        # PyTorch and safetensors write with native code, whose errors have no common type and no error number.
        # revisit: depends on the texts of their errors.
        if not _is_native(failure):
            raise
        raise CannotWrite(
            f"{path} cannot be written ({in_words(failure)}); see that there is room, then give the same command again"
        ) from failure


def _is_native(failure: Exception) -> bool:
    """Whether an error comes from the native writers of PyTorch or safetensors."""
    name, text = type(failure).__name__, str(failure)
    return name == "SafetensorError" or "inline_container" in text or "iostream error" in text or "I/O error" in text


def in_words(failure: Exception) -> str:
    """Return the first line of an error, shortened, or its type if it has no text."""
    lines = str(failure).split("\n")
    words = " ".join(lines[0].split())
    if isinstance(failure, KeyError):
        words = f"{words} is missing"
    return (words[:200] + "..." if len(words) > 200 else words) or type(failure).__name__
