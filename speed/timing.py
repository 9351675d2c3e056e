"""Candidates take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scanmix.progress import Bar

Work = Callable[[], object]
Candidate = Callable[[], Work]
"""Prepares everything, which is not timed, and returns the work that is timed."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...] = ()
    """Processor seconds of this process and of the workers it waited for: other programs change them less."""

    def __add__(self, later: Timing) -> Timing:
        return Timing(self.wall + later.wall, self.cpu + later.cpu)

    @property
    def best(self) -> float:
        """The minimum in seconds: what the work takes when nothing else runs."""
        return min(self.wall)

    @property
    def spread(self) -> float:
        """How much longer the worst repeat took than the best, as a share of the best."""
        return max(self.wall) / self.best - 1


def ready(work: Work) -> Candidate:
    """Return a candidate that needs no preparation."""
    return lambda: work


def interleave(candidates: Mapping[str, Candidate], repeats: int, bar: Bar) -> dict[str, Timing]:
    """Time every candidate once, then all of them again, `repeats` times in all."""
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            bar.advance(0, note=name)
            rounds[name].append(timed(candidate))
            bar.advance()
    return {name: Timing(*zip(*seconds, strict=True)) for name, seconds in rounds.items()}


def timed(candidate: Candidate) -> tuple[float, float]:
    """Return wall and processor seconds of one turn."""
    work = candidate()
    gc.collect()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system
