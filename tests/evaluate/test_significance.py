"""The bootstrap and the t-tests against slow versions and known values."""

import numpy as np
import pytest
from scipy import stats

from scanmix.evaluate.significance import compare, welch


def test_the_bootstrap_is_that_of_drawing_images() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(300) < 0.8, rng.random(300) < 0.7
    found = compare(first, second, 4000)
    slow = np.array([[first[drawn].mean(), second[drawn].mean()] for drawn in rng.integers(300, size=(4000, 300))])
    assert found.mean == pytest.approx(slow.mean(0), abs=0.002)
    assert found.deviation == pytest.approx(slow.std(0), rel=0.06)
    gaps = slow[:, 0] - slow[:, 1]
    assert found.interval == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=0.01)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    known = stats.ttest_ind(first.astype(float), second.astype(float), equal_var=False).pvalue
    assert found.p_value == pytest.approx(known, rel=0.4)


def test_images_that_both_get_right_do_not_widen_the_interval() -> None:
    first = np.arange(400) < 300
    alike, other = first.copy(), np.roll(first, 100)
    alike[:4] = False
    narrow, wide = (np.diff(compare(first, rival, 2000).interval)[0] for rival in (alike, other))
    assert narrow < wide / 4


def test_welch_is_scipys() -> None:
    first, second = [0.91, 0.93, 0.92], [0.88, 0.92, 0.85, 0.9]
    assert welch(first, second) == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    assert welch([0.5, 0.5], [0.5, 0.5]) == 1 and welch([0.5, 0.5], [0.6, 0.6]) == 0
    with pytest.raises(ValueError, match="two seeds"):
        welch([0.5], [0.4, 0.3])
