"""What goes wrong with a file, told in one sentence: the one place that translates, for reading and for writing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanmix.config import UserError

SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What more room on the disk mends."""
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class CannotWrite(UserError):
    """A file could not be written; what was there before is there still."""


def check_regular(path: str | Path) -> None:
    """Refuse what is there and no regular file: opening a pipe or a device may wait for ever.

    Raises:
        UserError: `path` is a folder, a pipe, a socket or a device.
        OSError: nothing is there, or it may not be looked at.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path} is {kind}; a file is needed")


@contextmanager
def reading(path: str | Path, fix: str = "", error: type[UserError] = UserError) -> Iterator[None]:
    """Read and parse one file in the block: whatever that raises becomes one sentence with its path.

    Only what looks at the content of the file belongs in the block, since every failure is blamed on the file. A
    `UserError` raised there passes, with the path before it.

    Args:
        path: the file; a pipe or a device is refused before it is opened.
        fix: what to do about a damaged one, "delete it and ...".
        error: the kind of error to raise.

    Raises:
        UserError: of the kind `error`.
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
    except Exception as failure:  # parsers raise whatever they like on damaged content
        raise error(f"{path} is damaged and cannot be read ({in_words(failure)}){hint}") from failure


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Write one file in the block: a full disk, a limit or a refusal becomes one sentence with its path.

    Raises:
        CannotWrite: says how to go on.
    """
    try:
        yield
    except OSError as failure:
        room = "; free some space, then give the same command again" if failure.errno in SPACE else ""
        raise CannotWrite(f"{path} cannot be written: {failure.strerror or failure}{room}") from failure
    except Exception as failure:
        # PyTorch and safetensors write with code of their own, whose errors share no base class and hide the number.
        if not _is_native(failure):
            raise
        raise CannotWrite(
            f"{path} cannot be written ({in_words(failure)}); see that there is room, then give the same command again"
        ) from failure


def _is_native(failure: Exception) -> bool:
    """Whether an error comes from writers outside Python."""
    name, text = type(failure).__name__, str(failure)
    return name == "SafetensorError" or "inline_container" in text or "iostream error" in text or "I/O error" in text


def in_words(failure: Exception) -> str:
    """The first line of an error, short, or its kind where it says nothing."""
    lines = str(failure).split("\n")
    words = " ".join(lines[0].split())
    if isinstance(failure, KeyError):
        words = f"{words} is missing"
    return (words[:200] + "..." if len(words) > 200 else words) or type(failure).__name__
