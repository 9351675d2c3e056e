"""What a person is told: the one error for bad input, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in one sentence: what is wrong, where, and the fix."""


class DataError(UserError):
    """A data set that was found and cannot be trained on as it is."""


class UnexpectedData(UserWarning):
    """A published data set that is not quite as it was published."""


def in_short(value: object, most: int = 60) -> str:
    """Write a value for an error: what it is where that is short, else its type and how it begins."""
    if isinstance(value, int) and abs(value) > 10**most:
        return f"a number of more than {most} digits"
    try:
        words = repr(value)
    except Exception:  # a repr of somebody else's
        words = ""
    if "\n" in words or not words:
        return f"a {type(value).__name__}"
    return words if len(words) <= most else f"{words[:most]}..."


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when none is like it. Letter case, `-` and `_` do not matter."""
    plain = {plain_name(choice): choice for choice in choices}
    found = difflib.get_close_matches(plain_name(name), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def plain_name(name: str) -> str:
    """A name as `nearest` compares it: small letters, `_` for `-`."""
    return name.lower().replace("-", "_")


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is none of `choices`; the caller raises it."""
    known = sorted(choices)
    guess = nearest(name, known)
    hint = f"did you mean {guess!r}? " if guess else ""
    return UserError(f"unknown {kind} {in_short(name)}; {hint}Known: {', '.join(known) or 'none'}")
