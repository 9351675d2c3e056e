"""Local intrinsic dimensionality (LID) of features, and when it starts to rise (D2L, Ma et al., ICML 2018).

Legend: B batch, D features, E epochs.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Least distance, and least size of the mean log ratio: duplicates would give log 0 and a division by 0."""


def intrinsic_dimensionality(features: Tensor, k: int) -> Tensor:
    """Return the maximum-likelihood estimate of LID at each example, from its k nearest others in the batch.

    -1 / mean_j log(r_j / r_k) with r_j the distance to the j-th nearest (Hill's estimator). In a
    batch of k or fewer examples all others are used. Where all k are at one distance, which a single neighbor always
    is, the result is 1 / SMALLEST. B must be at least 2. Memory grows with B x B.
    Shape: (B, D) -> (B,), positive.
    """
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(float("inf"))
    nearest = distances.topk(min(k, len(features) - 1), largest=False).values.clamp(min=SMALLEST)
    mean = (nearest / nearest[:, -1:]).log().mean(1)
    return -1 / mean.clamp(max=-SMALLEST)


def turns(lids: Tensor, window: int) -> bool:
    """Whether the last value is more than two standard deviations above the mean of the `window` values before it.

    In D2L this is the sign that a network starts to fit wrong labels. Costs a device synchronization.
    Shape: (E,), E > 1.
    """
    before = lids[-window - 1 : -1]
    return bool(lids[-1] - before.mean() > 2 * before.std(correction=0))
