"""Schedules at their ends, in the middle and beyond."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanmix.blocks.schedules import cosine, linear_ramp, step_decay


def test_cosine_goes_from_start_to_end() -> None:
    assert cosine(0.4, 0.0004, 0.0) == pytest.approx(0.4)
    assert cosine(0.4, 0.0004, 1.0) == pytest.approx(0.0004)
    assert cosine(0.4, 0.0004, 0.5) == pytest.approx(0.2002)
    # A quarter of the way cos(pi / 4) is half of the square root of 2.
    assert cosine(1.0, 0.0, 0.25) == pytest.approx((1 + math.sqrt(2) / 2) / 2)


@given(st.integers(0, 500), st.floats(0.01, 1))
def test_cosine_is_simclrs_schedule(epoch: int, rate: float) -> None:
    """reference-facts 1.1: lr = lo + (r - lo)(1 + cos(pi e / 500)) / 2 with lo = r * 0.1^3."""
    low = rate * 0.1**3
    slow = low + (rate - low) * (1 + math.cos(math.pi * epoch / 500)) / 2
    assert cosine(rate, low, epoch / 500) == pytest.approx(slow)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.02), (149, 0.02), (150, 0.002), (199, 0.002), (200, 0.0002), (300, 0.0002)]
)
def test_step_decay_falls_at_the_milestone_itself(epoch: int, rate: float) -> None:
    assert step_decay(0.02, 0.1, epoch, (150, 200)) == pytest.approx(rate)


def test_step_decay_without_milestones_is_constant() -> None:
    assert step_decay(0.02, 0.1, 1000, ()) == 0.02


@given(st.floats(-10, 50), st.floats(0.1, 30))
def test_linear_ramp_is_a_clipped_line(position: float, length: float) -> None:
    slow = 0.0 if position <= 0 else 1.0 if position >= length else position / length
    assert linear_ramp(position, length) == pytest.approx(slow)


def test_linear_ramp_of_no_length_is_no_ramp() -> None:
    assert linear_ramp(0.0, 0.0) == 1.0
    assert linear_ramp(0.0, 16.0) == 0.0
    assert linear_ramp(4.0, 16.0) == 0.25
