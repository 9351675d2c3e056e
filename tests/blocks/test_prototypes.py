"""Peaks of the density, and similarities to prototypes, against loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.prototypes import PrototypeScores, density_peaks


def peaks_by_hand(features: Tensor, count: int, share: float, most_similar: float) -> list[int]:
    unit = F.normalize(features, dim=1)
    rows = [[float(unit[i] @ unit[j]) for j in range(len(unit))] for i in range(len(unit))]
    ranked = sorted(value for row in rows for value in row)
    limit = ranked[max(1, math.ceil(share * len(ranked))) - 1]
    density = [sum((value > limit + 1e-7) - (value < limit - 1e-7) for value in row) for row in rows]
    apart: list[int] = []
    near: list[int] = []
    for place, i in enumerate(sorted(range(len(rows)), key=lambda i: (-density[i], i))):
        denser = [rows[i][j] for j in (*apart, *near)]
        eta = max(denser) if denser else min(rows[i])
        (apart if eta < most_similar and place < len(rows) / 2 else near).append(i)
    return [*apart, *near][:count]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("share", "most_similar"), [(0.4, 0.95), (0.4, 0.5), (0.8, 0.7), (0.0, 0.9)])
def test_peaks_by_hand(seed: int, share: float, most_similar: float) -> None:
    features = torch.randn(17, 3, generator=torch.Generator().manual_seed(seed))
    found = density_peaks(features, 5, share, most_similar)
    assert found.tolist() == peaks_by_hand(features, 5, share, most_similar)


def test_peaks_are_of_each_large_cloud_and_not_of_a_small_one() -> None:
    """Clouds of 14, 13 and 4 images around three directions, and six outliers by themselves."""
    draws = torch.Generator().manual_seed(0)
    clouds = torch.eye(9)[:3].repeat_interleave(torch.tensor([14, 13, 4]), 0)
    features = torch.cat([clouds + 0.04 * torch.randn(31, 9, generator=draws), torch.eye(9)[3:]])
    found = density_peaks(features, 8, 0.7, 0.9)
    assert sorted(int(i) // 14 for i in found[:2]) == [0, 1] and int(found.max()) < 27


def test_few_images_and_equal_ones() -> None:
    assert density_peaks(torch.randn(2, 4), 8).sort().values.tolist() == [0, 1]
    assert density_peaks(torch.ones(5, 4), 3).tolist() == [0, 1, 2]
    assert density_peaks(torch.randn(1, 4), 8).tolist() == [0]


def test_scores_are_mean_similarities() -> None:
    draws = torch.Generator().manual_seed(0)
    prototypes, features = torch.randn(3, 4, 6, generator=draws), torch.randn(7, 6, generator=draws)
    centers = torch.cat([F.normalize(prototypes, dim=2).mean(1), torch.full((1, 6), float("nan"))])
    found = PrototypeScores(centers)(features)
    for i in range(7):
        for c in range(3):
            wanted = sum(float(F.cosine_similarity(features[i], each, 0)) for each in prototypes[c]) / 4
            assert float(found[i, c]) == pytest.approx(wanted, abs=1e-5)
    assert found[:, 3].tolist() == [-1.0] * 7, "a class without prototypes is never the best"
