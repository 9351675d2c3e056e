"""Which examples of a batch are learned from. Legend: B batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def small_loss(losses: Tensor, share: float) -> Tensor:
    """Places of the floor(share * B) smallest losses, at least one, smallest first (Han et al., NeurIPS 2018).

    Of equal ones the first stands first. Shape: (B,) -> (K,) int64.
    """
    kept = max(1, math.floor(share * len(losses) + 1e-9))  # 0.7 * 10 is a little less than 7
    return losses.argsort(stable=True)[:kept]


def weight_of_small_losses(losses: Tensor, threshold: float, progress: float) -> Tensor:
    """Weights of MentorNet's predefined curriculum: all, then the small losses, then a soft border.

    Jiang et al., ICML 2018. `progress` is the share of training that is over: up to 18 % every example counts, up to
    90 % those whose loss is not above the threshold, later max(0, 1 - (loss - threshold)) of each, at most 1.
    Shape: (B,) -> (B,).
    """
    if progress <= 0.18:
        return torch.ones_like(losses)
    if progress < 0.9:
        return (losses <= threshold).to(losses.dtype)
    return (1 - (losses - threshold)).clamp(0, 1)


def percentile(losses: Tensor, share: float) -> float:
    """Return the loss below which this share of the batch lies, between neighbors in proportion. Shape: (B,)."""
    return float(torch.quantile(losses.detach().float(), share))


def wins_vote(labels: Tensor, neighbors: Tensor, num_classes: int, threshold: float) -> Tensor:
    """Whether each label has so large a share of the best vote, among its neighbors' labels (SSR, Feng et al. 2022).

    A vote counts 1 / how often its class occurs: of equally many neighbors a rare class wins. One that has the best
    vote always passes. Shape: (N,) int64, (N, K) int64 -> (N,) bool.
    """
    frequency = labels.bincount(minlength=num_classes).clamp(min=1).float()
    votes = torch.zeros(len(labels), num_classes, device=labels.device)
    votes.scatter_add_(1, labels[neighbors], torch.ones(neighbors.shape, device=labels.device))
    votes /= frequency
    own = votes.gather(1, labels.unsqueeze(1)).squeeze(1)
    return own >= threshold * votes.amax(1)


def class_weights(labels: Tensor, num_classes: int, most: float = 3.0) -> Tensor:
    """Return mean count / count of each class among those that occur, at most `most`; 0 of one that does not.

    PES (Bai et al., NeurIPS 2021). Shape: (N,) int64 -> (C,).
    """
    counts = labels.bincount(minlength=num_classes).float()
    weights = counts[counts > 0].mean() / counts.clamp(min=1)
    return torch.where(counts > 0, weights.clamp(max=most), 0.0)


def moving_percentile(before: float | None, losses: Tensor, share: float, keep: float) -> float:
    """Return keep * before + (1 - keep) * the percentile of this batch, or that alone at first. Shape: (B,)."""
    now = percentile(losses, share)
    return now if before is None else keep * before + (1 - keep) * now
