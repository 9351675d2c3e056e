"""A busy machine is noticed by processor time against the clock."""

import itertools

import pytest

from scanmix.doctor.busy import processor_share


@pytest.mark.parametrize(("speed", "found"), [(1.0, 1.0), (0.5, 0.5), (0.25, 0.25), (1.5, 1.0)])
def test_a_thread_that_waits_half_of_the_time_gets_half_of_a_processor(speed: float, found: float) -> None:
    ticks = itertools.count()
    now = [0.0]

    def worked() -> float:
        now[0] = 0.01 * next(ticks)
        return now[0]

    assert processor_share(lambda: now[0] / speed, worked) == pytest.approx(found, rel=1e-6)


def test_it_takes_a_moment() -> None:
    assert 0 < processor_share() <= 1
