"""Checks of arguments of public functions: type and bounds, with one sentence as the error."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from scanmix.config.errors import UserError, in_short

LARGEST = 2**63 - 1
"""The largest whole number that TOML and tensors can store."""
LONGEST_NAME = 255
"""Bytes that the name of a file may have on common file systems."""


def whole_number(name: str, value: object, least: int = 0, most: int = LARGEST) -> int:
    """Return a whole number, given as an int or as an integer of NumPy, if it is within its bounds.

    Args:
        name: name of the argument, for the error.
        value: the argument.
        least: smallest number that is allowed.
        most: largest number that is allowed.

    Raises:
        UserError: `value` is not a whole number, or is out of bounds.
    """
    bounds = f"of at least {least}" if most == LARGEST else f"from {least} to {most}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UserError(f"{name} must be a whole number {bounds}, not {in_short(value)}")
    try:
        number = operator.index(value)
    except Exception:  # an array of several numbers has the method, too
        raise UserError(f"{name} must be a whole number {bounds}, not {in_short(value)}") from None
    if not least <= number <= most:
        raise UserError(f"{name} must be a whole number {bounds}, not {in_short(number)}")
    return number


def check_type(name: str, value: object, wanted: type | tuple[type, ...], words: str) -> None:
    """Check the type of an argument.

    Args:
        name: name of the argument, for the error.
        value: the argument.
        wanted: the type, or several, of which one must fit.
        words: description of the type, for the error: "examples, as scanmix.load returns them".

    Raises:
        UserError: `value` is of another type.
    """
    if not isinstance(value, wanted):
        raise UserError(f"{name} must be {words}, not {in_short(value)}")


def file_path(name: str, value: object) -> Path:
    """Return a path that was given as text or as a path.

    Raises:
        UserError: `value` is of another type, or cannot be a path on any common system.
    """
    check_type(name, value, (str, os.PathLike), "a path")
    path = Path(os.fsdecode(value))  # type: ignore[arg-type]
    if "\0" in str(path) or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise UserError(f"{name} = {in_short(value)} is no path: a part of it is too long, or holds a zero byte")
    return path


def texts(name: str, value: object) -> tuple[str, ...]:
    """Return several texts as a tuple.

    Raises:
        UserError: `value` is a single text, or is not a series of texts.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise UserError(f"{name} must be several texts, not {in_short(value)}")
    found = tuple(value)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise UserError(f"{name} must be texts; number {place} is {in_short(text)}")
    return tuple(str(text) for text in found)
