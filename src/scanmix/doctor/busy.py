"""Whether other programs take part of this machine while times are measured."""

from __future__ import annotations

import time
from collections.abc import Callable

ENOUGH = 0.3
"""Seconds of processor time that are worked for."""
BUSY = 0.8
"""Share of a processor below which a machine counts as busy."""


def processor_share(
    clock: Callable[[], float] = time.perf_counter, worked: Callable[[], float] = time.thread_time
) -> float:
    """Return how much of a processor one thread gets now: its seconds of work for those by the clock (0..1).

    Args:
        clock: seconds by the clock.
        worked: seconds that this thread has worked.
    """
    began, before = clock(), worked()
    while (spent := worked() - before) < ENOUGH:
        pass
    return min(1.0, spent / (clock() - began))
