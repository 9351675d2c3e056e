"""Where the work is done: the device, the number of processes, gradients, and every source of randomness.

Randomness is derived, not carried: each draw comes from a generator made of (seed, stage, epoch, purpose,
rank). Resuming, caching and the order of evaluation cannot change a draw, and a checkpoint needs no random
state.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from scanmix.config import UserError

Tick = Callable[[str, int, int, str], None]
"""Called as (stage, done, total, note) whenever a stage is one epoch further."""


def _silent(stage: str, done: int, total: int, note: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Engine:
    """One process on one device; what a stage asks when it needs a generator, a gradient or a place to keep things."""

    seed: int = 0
    device: torch.device = torch.device("cpu")
    rank: int = 0
    cache: Path | None = None
    """Folder of label-free artifacts; nothing is kept without one."""
    tick: Tick = _silent

    def generator(self, stage: str, epoch: int, purpose: str) -> Generator:
        """Return a fresh generator on the device for one purpose in one epoch of one stage."""
        return Generator(self.device).manual_seed(derived_seed(self.seed, stage, str(epoch), purpose, str(self.rank)))

    def backward(self, loss: Tensor) -> None:
        """Compute gradients of a scalar loss; the one place where processes will average theirs."""
        torch.autograd.backward(loss)


class Diverged(UserError):
    """A loss stopped being a number."""


class Meter:
    """Means of the losses and the seconds of each stage of one epoch; stops at the first loss that is no number."""

    def __init__(self) -> None:
        """Start empty."""
        self._totals: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def add(self, stage: str, **losses: Tensor) -> None:
        """Count one step of `stage`.

        Raises:
            Diverged: when a loss is infinite or not a number; names the loss, the stage and the step.
        """
        values = torch.stack([loss.detach() for loss in losses.values()]).tolist()
        for name, value in zip(losses, values, strict=True):
            key = f"{stage}/{name}"
            self._counts[key] = self._counts.get(key, 0) + 1
            if not math.isfinite(value):
                step = self._counts[key]
                raise Diverged(f"the {name} loss became {value} at step {step} of {stage}; lower the learning rate")
            self._totals[key] = self._totals.get(key, 0.0) + value

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to `stage`."""
        start = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def results(self) -> dict[str, float]:
        """Return "stage/name" -> mean loss, and "seconds/stage" -> seconds."""
        means = {key: total / self._counts[key] for key, total in self._totals.items()}
        return means | {f"seconds/{stage}": seconds for stage, seconds in self._seconds.items()}


def derived_seed(seed: int, *names: str) -> int:
    """Return 63 bits that depend on the seed and on every name."""
    digest = hashlib.sha256("\x1f".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def find_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes an accelerator when there is one.

    Raises:
        UserError: when the device does not exist on this machine.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
        raise UserError(f"device {name!r} cannot be used on this machine; choose one of: auto, {there}") from error
    return device
