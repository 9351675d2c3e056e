"""Mean losses and seconds of the stages of one epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from scanmix.config import UserError


class Diverged(UserError):
    """A loss became infinite or NaN."""


UNREAD = 256
"""Steps whose losses stay on the device; reading them waits for it."""


class Meter:
    """Collects the losses and the seconds of each stage of one epoch; stops where a loss is not finite.

    Losses are read together, so that a step waits for no device: every `UNREAD` steps and at the end.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._unread: list[tuple[str, tuple[str, ...], Tensor]] = []
        self._totals: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def add(self, stage: str, **losses: Tensor) -> None:
        """Add the losses of one step of `stage`, by their names. Shape: each ().

        Raises:
            Diverged: a loss of an earlier step, or of this one, is infinite or NaN.
        """
        values = torch.stack([loss.detach() for loss in losses.values()])
        self._unread.append((stage, tuple(losses), values))
        if len(self._unread) >= UNREAD:
            self._read()

    def _read(self) -> None:
        """Add up what was not read yet: one device synchronization."""
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        numbers = iter(torch.cat([values for *_, values in steps]).tolist())
        for stage, names, _ in steps:
            for name, value in zip(names, numbers, strict=False):
                key = f"{stage}/{name}"
                self._counts[key] = self._counts.get(key, 0) + 1
                if not math.isfinite(value):
                    step = self._counts[key]
                    raise Diverged(f"the {name} loss became {value} at step {step} of {stage}; lower the learning rate")
                self._totals[key] = self._totals.get(key, 0.0) + value

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of the block, in seconds, to `stage`; a device may still be computing when it ends."""
        start = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def results(self) -> dict[str, float]:
        """Return "stage/name" -> mean loss over the steps, and "seconds/stage" -> seconds.

        Raises:
            Diverged: a loss is infinite or NaN; the message names the loss, the stage and the step.
        """
        self._read()
        means = {key: total / self._counts[key] for key, total in self._totals.items()}
        return means | {f"seconds/{stage}": seconds for stage, seconds in self._seconds.items()}
