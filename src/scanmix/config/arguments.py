"""Arguments of the functions that people call: of the right type and within their bounds, or one sentence."""

from __future__ import annotations

import operator

from scanmix.config.errors import UserError, in_short

LARGEST = 2**63 - 1
"""The largest whole number that TOML and tensors know."""


def whole_number(name: str, value: object, least: int = 0, most: int = LARGEST) -> int:
    """Return a whole number (an int or one of NumPy's) that lies within its bounds.

    Raises:
        UserError: it is something else, or outside.
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
    """Refuse what is of another type.

    Args:
        name: of the argument.
        value: what was given.
        wanted: the type, or any of several.
        words: what that is, "examples, as scanmix.load returns them".

    Raises:
        UserError: `value` is something else.
    """
    if not isinstance(value, wanted):
        raise UserError(f"{name} must be {words}, not {in_short(value)}")
