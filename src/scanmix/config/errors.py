"""Errors for users: the error type for bad input, and suggestions of the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input; the message is one sentence that says what is wrong, where, and how to fix it."""


class DataError(UserError):
    """A data set was found, but training is not possible on it as it is."""


class UnexpectedData(UserWarning):
    """A published data set differs from what was published."""


def in_short(value: object, most: int = 60) -> str:
    """Return a value as a short text for an error: its repr, cut after `most` characters, or its type."""
    if isinstance(value, int) and abs(value) > 10**most:
        return f"a number of more than {most} digits"
    try:
        words = repr(value)
    except Exception:  # the repr of an object from elsewhere may raise anything
        words = ""
    if "\n" in words or not words:
        return f"a {type(value).__name__}"
    return words if len(words) <= most else f"{words[:most]}..."


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `name`, or None; letter case and `-` or `_` do not matter."""
    plain = {plain_name(choice): choice for choice in choices}
    found = difflib.get_close_matches(plain_name(name), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def plain_name(name: str) -> str:
    """Return a name as `nearest` compares it: lower case, `_` for `-`."""
    return name.lower().replace("-", "_")


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """Return the error for a name that is not one of `choices`; the caller raises it.

    Args:
        kind: what is named, for the message: "recipe".
        name: the unknown name.
        choices: the known names.
    """
    known = sorted(choices)
    guess = nearest(name, known)
    hint = f"did you mean {guess!r}? " if guess else ""
    return UserError(f"unknown {kind} {in_short(name)}; {hint}Known: {', '.join(known) or 'none'}")
