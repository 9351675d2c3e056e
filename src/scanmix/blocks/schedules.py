"""Learning rates and weights as functions of progress."""

from __future__ import annotations

import math


def cosine(start: float, end: float, done: float) -> float:
    """Return half a cosine from `start` to `end` at `done`, the share 0..1 of the schedule that is over.

    The schedule of SimCLR and MoCo in SCAN's code.
    """
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def step_decay(start: float, factor: float, epoch: int, milestones: tuple[int, ...]) -> float:
    """Return `start`, multiplied by `factor` once for each milestone (an epoch) that is not after `epoch`."""
    return start * factor ** sum(epoch >= milestone for milestone in milestones)


def linear_ramp(position: float, length: float) -> float:
    """Return a weight that rises linearly from 0 at position 0 to 1 at `length`, and stays 1 (lambda_u of DivideMix).

    With a `length` of 0 there is no ramp: the weight is 1.
    """
    return min(max(position / length, 0.0), 1.0) if length > 0 else 1.0


def sigmoid_ramp(position: float, length: float) -> float:
    """Return exp(-5 (1 - u)^2) with u = position / length, clipped to 0..1 (Tarvainen and Valpola, NeurIPS 2017).

    It rises from exp(-5) to 1. With a `length` of 0 it is 1.
    """
    done = min(max(position / length, 0.0), 1.0) if length > 0 else 1.0
    return math.exp(-5 * (1 - done) ** 2)
