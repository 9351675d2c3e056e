"""Durations of stages, in epochs, steps or percent.

Small data sets need steps: ten epochs of 1,437 images are far fewer steps than ten epochs of 50,000.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator

from scanmix.config.errors import UserError

_DURATION = re.compile(r"(?P<count>\d{1,15}) ?(?P<unit>epochs?|steps?)|(?P<percent>\d{1,15}(\.\d{1,15})?) ?%")


def _check_duration(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or Fraction(match["percent"] or 0) > 100:
        raise ValueError('write a number of epochs, "10 epochs", "400 steps" or "5%" of all epochs')
    return str(value)


Duration = Annotated[int | str, BeforeValidator(_check_duration)]
"""Length of a stage: an int (epochs), `"10 epochs"`, `"400 steps"` or `"5%"` (of all epochs)."""


def epochs_of(duration: int | str, steps_per_epoch: int, total_epochs: int) -> int:
    """Return a `Duration` as whole epochs, rounded up; zero stays 0.

    Args:
        duration: the duration.
        steps_per_epoch: steps (batches) in an epoch.
        total_epochs: number of epochs that a percentage is of.

    Raises:
        UserError: `duration` is not a duration.
    """
    try:
        checked = _check_duration(duration)
    except ValueError as error:
        raise UserError(f"{duration!r} is not a duration: {error}") from None
    match = _DURATION.fullmatch(str(checked))
    if match is None:  # an int
        return int(checked)
    if match["percent"]:
        return math.ceil(Fraction(match["percent"]) * total_epochs / 100)  # exact: 1.1 % of 1000 is 11, not 12
    if match["unit"].startswith("step"):
        return math.ceil(Fraction(int(match["count"]), steps_per_epoch))
    return int(match["count"])


def epochs_in(duration: int | str, count: int, batch_size: int, total_epochs: int) -> int:
    """Return a `Duration` as whole epochs over `count` examples: a step is a batch, and the last may be short.

    Raises:
        UserError: as `epochs_of`.
    """
    return epochs_of(duration, -(-count // batch_size), total_epochs)
