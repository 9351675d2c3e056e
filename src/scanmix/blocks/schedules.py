"""Learning rates and weights as functions of progress."""

from __future__ import annotations

import math


def cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from `start` to `end`; `done` in 0..1 (SimCLR and MoCo schedule of the SCAN code)."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def step_decay(start: float, factor: float, epoch: int, milestones: tuple[int, ...]) -> float:
    """`start`, multiplied by `factor` once for every milestone reached."""
    return start * factor ** sum(epoch >= milestone for milestone in milestones)


def linear_ramp(position: float, length: float) -> float:
    """0 at position 0, 1 from `length` on, straight between (the ramp of lambda_u); a length of 0 is no ramp."""
    return min(max(position / length, 0.0), 1.0) if length > 0 else 1.0


def sigmoid_ramp(position: float, length: float) -> float:
    """exp(-5 (1 - u)^2), u = position / length up to 1: from nearly 0 to 1 (Tarvainen and Valpola 2017)."""
    done = min(max(position / length, 0.0), 1.0) if length > 0 else 1.0
    return math.exp(-5 * (1 - done) ** 2)
