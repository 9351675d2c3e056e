"""Losses: logits and targets in, scalars out. All use log-softmax, so no logarithm of 0 is taken.

Losses are in nats and differentiable. The mean over an empty batch is NaN, as in PyTorch.

Legend: B batch, C classes, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_FLOOR = -100.0
"""Least logarithm, as PyTorch's binary cross-entropy clamps its own."""
PROBABILITY_FLOOR = 1e-8
"""Least probability whose logarithm is taken where no log-softmax gives it."""


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the batch of -sum_c t_c log p_c, with targets t in 0..1. Shape: (B, C), (B, C) -> ()."""
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


def probability_mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over examples *and classes* of (p - t)^2, the unlabeled loss of MixMatch (NeurIPS 2019, Eq. 4).

    Shape: (B, C), (B, C) -> ().
    """
    return (logits.softmax(1) - targets).square().mean()


def prior_penalty(logits: Tensor, prior: Tensor | None = None) -> Tensor:
    """Return KL(prior || mean prediction), the class-prior constraint l_r of ScanMix Eq. 7.

    `prior` is uniform when not given; its zeros add nothing. Shape: (B, C), (C,) -> ().
    """
    mean = logits.softmax(1).mean(0).clamp(min=PROBABILITY_FLOOR)
    if prior is None:
        prior = torch.full_like(mean, 1 / len(mean))
    return torch.xlogy(prior, prior).sum() - (prior * mean.log()).sum()


def confidence_penalty(logits: Tensor) -> Tensor:
    """Return the mean over the batch of sum_c p log p, the negative entropy of the predictions.

    0 for certain predictions and -log C for uniform ones. DivideMix adds it in warm-up for asymmetric noise.
    Shape: (B, C) -> ().
    """
    return (logits.softmax(1) * F.log_softmax(logits, 1)).sum(1).mean()


def scan_loss(anchor_logits: Tensor, neighbor_logits: Tensor, entropy_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return SCAN's clustering loss and its parts (Van Gansbeke et al. 2020; ScanMix Eq. 9: l_N + lambda_e l_e).

    consistency = -mean log <p_anchor, p_neighbor>, at most -LOG_FLOOR; entropy = H(mean anchor prediction).
    Returns (consistency - entropy_weight * entropy, consistency, entropy). Shape: (B, C), (B, C) -> (), (), ().
    """
    log_dot = torch.logsumexp(F.log_softmax(anchor_logits, 1) + F.log_softmax(neighbor_logits, 1), 1)
    consistency = -log_dot.clamp(min=LOG_FLOOR).mean()
    mean = anchor_logits.softmax(1).mean(0)
    entropy = -(mean * mean.clamp(min=PROBABILITY_FLOOR).log()).sum()
    return consistency - entropy_weight * entropy, consistency, entropy


def nt_xent_one_way(anchors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent with the first views alone as anchors, as in SCAN's and ScanMix's code.

    Each anchor is contrasted with all 2B embeddings but itself. Rows are L2-normalized. Memory grows with B x B.
    Shape: (B, D), (B, D) -> ().
    """
    count = len(anchors)
    similarity = anchors @ torch.cat([anchors, positives]).T / temperature  # (B, 2B)
    itself = torch.eye(count, 2 * count, dtype=torch.bool, device=anchors.device)
    partner = torch.arange(count, 2 * count, device=anchors.device)
    return F.cross_entropy(similarity.masked_fill(itself, float("-inf")), partner)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent with both views as anchors (SimCLR, Chen et al. 2020, Eq. 1).

    Rows are L2-normalized. Memory grows with B x B. Shape: (B, D), (B, D) -> ().
    """
    return (nt_xent_one_way(first, second, temperature) + nt_xent_one_way(second, first, temperature)) / 2


class SemiSupervised(NamedTuple):
    """The semi-supervised loss and its three unweighted parts, scalars."""

    total: Tensor
    """l_MLE."""
    labeled: Tensor
    """l_X."""
    unlabeled: Tensor
    """l_U; 0 without unlabeled rows."""
    prior: Tensor
    """l_r."""


def semi_supervised_loss(
    logits: Tensor,
    targets: Tensor,
    num_labeled: int,
    unlabeled_weight: float,
    prior_weight: float,
    prior: Tensor | None = None,
    weights: Tensor | None = None,
) -> SemiSupervised:
    """Return l_MLE = l_X + lambda_u l_U + lambda_r l_r (ScanMix Eq. 7; DivideMix) and its parts.

    Shape: (B, C), (B, C), prior (C,), weights (B,) -> four times ().

    Args:
        logits: of the labeled rows, then of the unlabeled ones.
        targets: class probabilities of the same rows.
        num_labeled: number of labeled rows, at least 1; with no other rows l_U is 0.
        unlabeled_weight: lambda_u.
        prior_weight: lambda_r.
        prior: shares of the classes; uniform when not given.
        weights: of the rows; all 1 when not given.
    """
    if weights is None:  # one mean each: a mean of rows rounds otherwise, and runs that exist go on with the same bits
        labeled = soft_cross_entropy(logits[:num_labeled], targets[:num_labeled])
        rest = logits[num_labeled:]
        unlabeled = probability_mse(rest, targets[num_labeled:]) if len(rest) else logits.new_zeros(())
    else:
        losses = weights * semi_supervised_losses(logits, targets, num_labeled)
        labeled = losses[:num_labeled].mean()
        unlabeled = losses[num_labeled:].sum() / max(1, len(losses) - num_labeled)
    penalty = prior_penalty(logits, prior)
    total = labeled + unlabeled_weight * unlabeled + prior_weight * penalty
    return SemiSupervised(total, labeled, unlabeled, penalty)


def semi_supervised_losses(logits: Tensor, targets: Tensor, num_labeled: int) -> Tensor:
    """Return the losses of the rows whose means l_X and l_U are: first cross-entropies, then mean squared errors.

    Shape: (B, C), (B, C) -> (B,).
    """
    fit = F.cross_entropy(logits[:num_labeled], targets[:num_labeled], reduction="none")
    apart = (logits[num_labeled:].softmax(1) - targets[num_labeled:]).square().mean(1)
    return torch.cat([fit, apart])


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE (MoCo, He et al. 2020, Eq. 1): each query against its own key and all K keys of the queue.

    All rows are L2-normalized; keys and queue should take no gradient. Shape: (B, D), (B, D), (K, D) -> ().
    """
    positive = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
