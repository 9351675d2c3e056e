"""Comparing images with references of their class."""

import math

import pytest
import torch

from scanmix.blocks.verification import class_references, compressed, verification_losses


def test_features_are_compressed_and_keep_their_sign() -> None:
    found = compressed(torch.tensor([-3.0, -0.5, 0.0, 2.0]))
    assert found.tolist() == pytest.approx([-math.log(4), -math.log(1.5), 0, math.log(3)])


def test_references_are_the_centers_of_each_class() -> None:
    """Three tight groups in each of two classes; a third class has two examples, a fourth has none."""
    draws = torch.Generator().manual_seed(0)
    groups = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    places = torch.cat([groups, groups + 1000])
    features = (places.unsqueeze(1) + 0.01 * torch.randn(6, 5, 2, generator=draws)).flatten(0, 1)
    features = torch.cat([features, torch.tensor([[7.0, 7.0], [9.0, 9.0]])])
    labels = torch.tensor([0] * 15 + [1] * 15 + [2, 2])
    found = class_references(features, labels, 4, 8, torch.Generator().manual_seed(1))
    assert found.shape == (4, 8, 2) and float(found[3].abs().max()) == 0
    for label, wanted in ((0, groups), (1, groups + 1000)):
        distance = torch.cdist(found[label], wanted)
        assert float(distance.min(1).values.max()) < 0.1, "every center is in a group"
        assert float(distance.min(0).values.max()) < 0.1, "every group has a center"
    assert {tuple(row) for row in found[2].tolist()} == {(7.0, 7.0), (9.0, 9.0)}


@pytest.mark.parametrize("k", [1, 4])
def test_a_center_is_the_mean_of_the_examples_nearest_to_it(k: int) -> None:
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    (centers,) = class_references(rows, torch.zeros(40, dtype=torch.int64), 1, k, torch.Generator().manual_seed(1))
    nearest = [min(range(k), key=lambda c: float((row - centers[c]).norm())) for row in rows]
    spread = sum(float((row - centers[c]).square().sum()) for row, c in zip(rows, nearest, strict=True))
    means = torch.stack([rows[[i for i in range(40) if nearest[i] == c]].mean(0) for c in range(k)])
    again = sum(float((row - means[c]).square().sum()) for row, c in zip(rows, nearest, strict=True))
    assert spread == pytest.approx(again, rel=0.02), "k-means has come to rest"


def test_losses_of_pairs_that_belong_together_and_others() -> None:
    similarity = torch.tensor([0.9, -0.5, 0.05, 0.6])
    relevant = torch.tensor([True, True, False, False])
    found = verification_losses(similarity, relevant, 5.0, 0.1)
    assert found.tolist() == pytest.approx([0.1, 1.5, 0.0, 2.5])
