"""Local intrinsic dimensionality of features, and when it turns (D2L, Ma et al., ICML 2018). Legend: B batch."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Distances and ratios below this hold no evidence (duplicates)."""


def intrinsic_dimensionality(features: Tensor, k: int) -> Tensor:
    """Return the maximum-likelihood LID at each example, from its k nearest others in the batch (Hill's estimator).

    -1 / mean_j log(r_j / r_k), r_j the distance to the j-th nearest. Shape: (B, D) -> (B,).
    """
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(float("inf"))
    nearest = distances.topk(min(k, len(features) - 1), largest=False).values.clamp(min=SMALLEST)
    mean = (nearest / nearest[:, -1:]).log().mean(1)
    return -1 / mean.clamp(max=-SMALLEST)


def turns(lids: Tensor, window: int) -> bool:
    """Whether the last value is two standard deviations above the mean of the `window` before it. Shape: (E,)."""
    before = lids[-window - 1 : -1]
    return bool(lids[-1] - before.mean() > 2 * before.std(correction=0))
