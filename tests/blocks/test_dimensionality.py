"""Local intrinsic dimensionality, beside a slow version and spaces of known dimension."""

import math

import pytest
import torch

from scanmix.blocks.dimensionality import intrinsic_dimensionality, turns


def test_by_hand() -> None:
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    found = intrinsic_dimensionality(features, 5)
    for i in range(30):
        distances = sorted(float((features[i] - features[j]).norm()) for j in range(30) if j != i)[:5]
        slow = -5 / sum(math.log(r / distances[-1]) for r in distances)
        assert float(found[i]) == pytest.approx(slow, rel=1e-3)


@pytest.mark.parametrize("dimension", [2, 5])
def test_it_is_about_the_dimension_of_the_space_the_features_lie_in(dimension: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(2000, dimension, generator=generator)
    features = inside @ torch.randn(dimension, 40, generator=generator)
    assert float(intrinsic_dimensionality(features, 20).mean()) == pytest.approx(dimension, rel=0.2)


def test_duplicates_give_numbers() -> None:
    found = intrinsic_dimensionality(torch.ones(8, 3), 3)
    assert bool(found.isfinite().all())


def test_a_turn_is_two_deviations_above_the_mean() -> None:
    before = [4.0, 3.0, 2.0, 3.0, 4.0]  # mean 3.2, deviation 0.75
    assert not turns(torch.tensor([9.0, *before, 4.6]), 5)
    assert turns(torch.tensor([9.0, *before, 4.8]), 5)
