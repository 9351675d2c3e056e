"""A mixture of two Beta distributions on normalized losses (Arazo et al., ICML 2019). Legend: N examples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EDGE = 1e-3
"""Losses are kept this far from 0 and 1, where a Beta density may be infinite."""
BINS = 100
"""Entries of the table that the posterior is read from."""


class NoisyAt(NamedTuple):
    """P(label is wrong | loss), looked up in a table over the range of losses from `low` to `high`."""

    table: Tensor
    """(BINS,) probabilities in 0..1; entry i is that of the scaled loss (i + 0.5) / BINS."""
    low: float
    """The loss that is scaled to 0; smaller ones count as this."""
    high: float
    """The loss that is scaled to 1; larger ones count as this."""

    def __call__(self, losses: Tensor) -> Tensor:
        """Return P(label is wrong) for each of these losses, in 0..1. Shape: (B,) -> (B,)."""
        position = ((losses - self.low) / (self.high - self.low)).clamp(0, 1) * BINS
        return self.table[position.long().clamp(0, BINS - 1)]


def fit_beta_mixture(losses: Tensor, rounds: int = 10) -> NoisyAt:
    """Fit by EM with weighted moments, and tabulate the posterior of the component of larger mean.

    Arazo et al., ICML 2019. Losses outside their 5th and 95th percentile are left out, and the others are
    scaled to 0..1 by these two. Above the loss where the posterior is largest it is held constant, because a wide
    component of small losses would otherwise claim the largest losses. Where all losses are equal, or fewer than two
    are left, every label counts as right. Losses must be finite. The fit runs on the CPU in float64, which costs a
    device synchronization. Shape: (N,) -> P(label is wrong | loss).

    Args:
        losses: a loss of each example, of its given label.
        rounds: iterations of EM; 10 is the published value.
    """
    losses = losses.detach().double().cpu()
    low, high = (float(torch.quantile(losses, share)) for share in (0.05, 0.95))
    within = losses[(losses >= low) & (losses <= high)]
    if high - low < 1e-6 or len(within) < 2:
        return NoisyAt(torch.zeros(BINS), low, low + 1.0)
    points = ((within - low) / (high - low)).clamp(EDGE, 1 - EDGE)
    shapes, weights = [(1.0, 2.0), (2.0, 1.0)], torch.tensor([0.5, 0.5], dtype=torch.float64)
    for _ in range(rounds):
        shares = _densities(points, shapes) * weights.unsqueeze(1)
        shares /= shares.sum(0).clamp(min=1e-300)
        shapes = [_by_moments(points, share) for share in shares]
        weights = shares.mean(1)
    if shapes[0][0] / sum(shapes[0]) > shapes[1][0] / sum(shapes[1]):
        shapes, weights = shapes[::-1], weights.flip(0)
    centers = ((torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS).clamp(EDGE, 1 - EDGE)
    joint = _densities(centers, shapes) * weights.unsqueeze(1)
    table = joint[1] / joint.sum(0).clamp(min=1e-300)
    table[int(table.argmax()) :] = table.max()
    return NoisyAt(table.float(), low, high)


def _densities(points: Tensor, shapes: list[tuple[float, float]]) -> Tensor:
    """Density of each component at the points. Shape: (N,) -> (2, N)."""
    return torch.stack([torch.distributions.Beta(*_pair(shape)).log_prob(points).exp() for shape in shapes])


def _pair(shape: tuple[float, float]) -> tuple[Tensor, Tensor]:
    a, b = torch.tensor(shape, dtype=torch.float64)
    return a, b


def _by_moments(points: Tensor, share: Tensor) -> tuple[float, float]:
    """Return a and b of the Beta distribution that has the weighted mean and variance. Shape: (N,), (N,)."""
    total = share.sum().clamp(min=1e-12)
    mean = min(max(float((share * points).sum() / total), EDGE), 1 - EDGE)
    variance = max(float((share * (points - mean).square()).sum() / total), 1e-6)
    a = max(mean * (mean * (1 - mean) / variance - 1), 1e-2)
    return a, a * (1 - mean) / mean
