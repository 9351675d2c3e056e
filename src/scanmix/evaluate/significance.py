"""Whether one run is better than another by more than chance: the bootstrap and t-test of ScanMix section 4.3.

Legend: N test images, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
"""Resamples of the bootstrap, R."""


class Comparison(NamedTuple):
    """A comparison of two runs on the same test images; accuracies are shares (0..1)."""

    mean: tuple[float, float]
    """Means of the resampled accuracies."""
    deviation: tuple[float, float]
    """Standard deviations of the resampled accuracies: how much an accuracy depends on the choice of test images."""
    difference: float
    """Accuracy of the first run minus that of the second."""
    interval: tuple[float, float]
    """Interval of 95 % of the resampled differences; each resample takes the same images for both runs."""
    p_value: float
    """Two-sided p-value of Welch's t-test with the bootstrap's variances, N - 1 degrees of freedom each."""


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share, hits / count, in which the true one lies with 95 % (Wilson, JASA 1927).

    It is sensible for few examples too, and for shares of 0 and 1. `count` is at least 1; `z` is the quantile of the
    normal distribution.
    """
    share, square = hits / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def compare(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare which images two runs predict correctly. Shape: (N,) bool, (N,) bool.

    The result says how certain the difference between *these two* trained networks is. It does not say what another
    seed of training would give; for that, use `welch` on several seeds. Resamples are counts of four outcomes, so
    their memory does not grow with N.
    """
    count, rng = len(first), np.random.default_rng(seed)
    both = np.stack([first, second], 1).astype(np.float64)
    # A resample only depends on how often it has each of four outcomes: both right, the first, the second, neither.
    outcomes, number = np.unique(both, axis=0, return_counts=True)
    drawn = rng.multinomial(count, number / count, size=resamples) / count  # (R, outcomes)
    resampled = drawn @ outcomes
    gaps = resampled[:, 0] - resampled[:, 1]
    mean, spread = resampled.mean(0), resampled.std(0, ddof=1)
    low, high = np.quantile(gaps, [0.025, 0.975])
    return Comparison(
        mean=(float(mean[0]), float(mean[1])),
        deviation=(float(spread[0]), float(spread[1])),
        difference=float(both[:, 0].mean() - both[:, 1].mean()),
        interval=(float(low), float(high)),
        p_value=_p_value(float(mean[0] - mean[1]), float(spread[0]) ** 2, float(spread[1]) ** 2, count, count),
    )


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of Welch's t-test between the accuracies of two methods over seeds.

    Where neither varies it is 1 for equal means, else 0.

    Raises:
        ValueError: there are fewer than two values on a side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a t-test needs two seeds of each at least")
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    variances = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    return _p_value(float(one.mean() - two.mean()), float(variances[0]), float(variances[1]), len(one), len(two))


def _p_value(difference: float, first: float, second: float, count: int, other: int) -> float:
    """Return the p-value of Welch's test, given the variances and the numbers of values of both means."""
    from scipy.stats import t

    if first + second == 0:
        return 1.0 if difference == 0 else 0.0
    freedom = (first + second) ** 2 / (first**2 / (count - 1) + second**2 / (other - 1))
    return float(2 * t.sf(abs(difference) / math.sqrt(first + second), freedom))
