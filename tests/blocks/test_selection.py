"""Which examples of a batch count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scanmix.blocks.selection import percentile, small_loss, weight_of_small_losses


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=30), st.floats(0, 1))
def test_small_losses_are_the_smallest(values: list[float], share: float) -> None:
    losses = torch.tensor(values)
    chosen = small_loss(losses, share).tolist()
    assert len(chosen) == len(set(chosen)) == max(1, int(share * len(values) + 1e-9))
    ranked = sorted(range(len(values)), key=lambda i: (losses[i].item(), i))
    assert chosen == ranked[: len(chosen)]


@pytest.mark.parametrize(("share", "count"), [(0.7, 7), (1.0, 10), (0.0, 1), (0.29, 2), (0.3, 3)])
def test_how_many_are_kept(share: float, count: int) -> None:
    assert len(small_loss(torch.rand(10), share)) == count


@pytest.mark.parametrize(
    ("progress", "weights"),
    [
        (0.0, [1.0, 1.0, 1.0, 1.0]),
        (0.18, [1.0, 1.0, 1.0, 1.0]),
        (0.19, [1.0, 1.0, 0.0, 0.0]),
        (0.9, [1.0, 1.0, 0.75, 0.0]),
    ],
)
def test_the_predefined_curriculum(progress: float, weights: list[float]) -> None:
    losses = torch.tensor([0.1, 1.0, 1.25, 2.5])
    assert weight_of_small_losses(losses, 1.0, progress).tolist() == pytest.approx(weights)


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=30), st.floats(0, 1))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    assert percentile(torch.tensor(values), share) == pytest.approx(float(np.quantile(values, share)), abs=1e-4)
