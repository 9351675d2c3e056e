"""Contestants take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scanmix.progress import Bar

Work = Callable[[], object]
Contestant = Callable[[], Work]
"""Makes everything ready, untimed, and returns the work that is timed."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...] = ()
    """Of this process and of the workers it waited for: what is left of a ratio on a machine that others use too."""

    def __add__(self, later: Timing) -> Timing:
        return Timing(self.wall + later.wall, self.cpu + later.cpu)

    @property
    def best(self) -> float:
        """The minimum: what the work takes when nothing comes between."""
        return min(self.wall)

    @property
    def spread(self) -> float:
        """How much longer than the best the worst repeat took, as a share of the best."""
        return max(self.wall) / self.best - 1


def ready(work: Work) -> Contestant:
    """Return a contestant that needs no preparation."""
    return lambda: work


def interleave(contestants: Mapping[str, Contestant], repeats: int, bar: Bar) -> dict[str, Timing]:
    """Time every contestant once, then all of them again, `repeats` times in all."""
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            bar.advance(0, note=name)
            rounds[name].append(timed(contestant))
            bar.advance()
    return {name: Timing(*zip(*seconds, strict=True)) for name, seconds in rounds.items()}


def timed(contestant: Contestant) -> tuple[float, float]:
    """Return wall and processor seconds of one go."""
    work = contestant()
    gc.collect()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system
