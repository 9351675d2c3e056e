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
