"""Linear discriminant analysis (Fisher, 1936; Rao, 1948): the directions in which classes differ most.

Legend: N examples, C classes, D features, E directions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-4
"""Standard deviations below this share of a feature's count as none, and so do differences of classes below this share
of the largest or of the standard deviation within them: they may be rounding errors."""
ROUNDING = 1e-10
"""A feature whose standard deviation within classes is below this share of its largest value is constant in each."""


class Discriminants(NamedTuple):
    """A place x has the coordinates (x - center) @ directions."""

    center: Tensor
    """(D,), the mean."""
    directions: Tensor
    """(D, E), the most telling first, of variance 1 within classes; those that tell nothing are 0."""


def discriminants(features: Tensor, labels: Tensor, num_classes: int, shrinkage: float = 0.0) -> Discriminants:
    """Return the directions whose variance between classes is largest for that within classes, at most C - 1 of them.

    Features are first divided by their standard deviation within classes, so that their units do not matter.
    `shrinkage` (0..1) takes such a share of the correlations within classes away. With none, directions in which
    classes do not vary are left out; where there are hardly more examples than features, the others fit these alone.
    Computed in float64: memory grows with N x D. Shape: (N, D), (N,) int64 -> (D,), (D, C - 1).
    """
    rows = features.double()
    member = F.one_hot(labels, num_classes).double()
    counts = member.sum(0)
    means = member.T @ rows / counts.clamp(min=1).unsqueeze(1)
    center = rows.mean(0)
    within = rows - means[labels]
    spread = within.square().mean(0).sqrt()
    spread = torch.where(spread > ROUNDING * rows.abs().amax(0), spread, 1.0)
    whitening = _whitening(within / spread, shrinkage)
    between = (counts / len(rows)).sqrt().unsqueeze(1) * (means - center) / spread @ whitening
    _, sizes, turned = torch.linalg.svd(between, full_matrices=False)
    count = num_classes - 1
    found = torch.zeros(rows.shape[1], count, dtype=rows.dtype, device=rows.device)
    telling = whitening @ (turned * (sizes > LEAST * sizes[0].clamp(min=1)).unsqueeze(1)).T / spread.unsqueeze(1)
    kept = min(count, telling.shape[1])
    found[:, :kept] = telling[:, :kept]
    return Discriminants(center.to(features), found.to(features))


def _whitening(within: Tensor, shrinkage: float) -> Tensor:
    """Return what gives deviations from class means the covariance 1. Shape: (N, D) -> (D, at most D)."""
    covariance = within.T @ within / len(within)
    level = covariance.diagonal().mean()
    covariance = (1 - shrinkage) * covariance
    covariance.diagonal().add_(shrinkage * level)
    variances, axes = torch.linalg.eigh(covariance)
    kept = variances > LEAST**2
    if not bool(kept.any()):  # examples of a class are all alike
        return torch.eye(len(covariance), dtype=within.dtype, device=within.device)
    whitening: Tensor = axes[:, kept] / variances[kept].sqrt()
    return whitening
