"""Losses: logits and targets in, scalars out, all through log-softmax so that no probability is ever log(0).

Legend: B batch, C classes, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_FLOOR = -100.0  # where binary cross-entropy clamps its logarithm
PROBABILITY_FLOOR = 1e-8


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum_c t_c log p_c. Shape: (B, C), (B, C) -> ()."""
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


def probability_mse(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over examples *and classes* of (p - t)^2: MixMatch's unlabeled loss. Shape: (B, C), (B, C) -> ()."""
    return (logits.softmax(1) - targets).square().mean()


def prior_penalty(logits: Tensor, prior: Tensor | None = None) -> Tensor:
    """KL(prior || mean prediction), the class-prior constraint of ScanMix Eq. 7.

    `prior` is uniform when not given. Shape: (B, C), (C,) -> ().
    """
    mean = logits.softmax(1).mean(0).clamp(min=PROBABILITY_FLOOR)
    if prior is None:
        prior = torch.full_like(mean, 1 / len(mean))
    return torch.xlogy(prior, prior).sum() - (prior * mean.log()).sum()


def confidence_penalty(logits: Tensor) -> Tensor:
    """Mean over the batch of sum_c p log p (negative entropy): large when confident. Shape: (B, C) -> ()."""
    return (logits.softmax(1) * F.log_softmax(logits, 1)).sum(1).mean()


def scan_loss(anchor_logits: Tensor, neighbor_logits: Tensor, entropy_weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """SCAN's clustering loss (Van Gansbeke et al. 2020; ScanMix Eq. 9, l_CLU = l_N + lambda_e l_e).

    consistency = -mean log <p_anchor, p_neighbor>; entropy = H(mean anchor prediction), in nats.
    Returns (consistency - entropy_weight * entropy, consistency, entropy). Shape: (B, C), (B, C) -> (), (), ().
    """
    log_dot = torch.logsumexp(F.log_softmax(anchor_logits, 1) + F.log_softmax(neighbor_logits, 1), 1)
    consistency = -log_dot.clamp(min=LOG_FLOOR).mean()
    mean = anchor_logits.softmax(1).mean(0)
    entropy = -(mean * mean.clamp(min=PROBABILITY_FLOOR).log()).sum()
    return consistency - entropy_weight * entropy, consistency, entropy


def nt_xent_one_way(anchors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """NT-Xent with only the first view as anchor, as in SCAN's and ScanMix's code.

    Each anchor is told from all 2B embeddings but itself. Embeddings are L2-normalized. Shape: (B, D), (B, D) -> ().
    """
    count = len(anchors)
    similarity = anchors @ torch.cat([anchors, positives]).T / temperature  # (B, 2B)
    own = torch.eye(count, 2 * count, dtype=torch.bool, device=anchors.device)
    partner = torch.arange(count, 2 * count, device=anchors.device)
    return F.cross_entropy(similarity.masked_fill(own, float("-inf")), partner)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent with both views as anchors (SimCLR, Chen et al. 2020, Eq. 1). Shape: (B, D), (B, D) -> ()."""
    return (nt_xent_one_way(first, second, temperature) + nt_xent_one_way(second, first, temperature)) / 2


class SemiSupervised(NamedTuple):
    """l_MLE and its three parts, unweighted."""

    total: Tensor
    labeled: Tensor
    unlabeled: Tensor
    prior: Tensor


def semi_supervised_loss(
    logits: Tensor,
    targets: Tensor,
    num_labeled: int,
    unlabeled_weight: float,
    prior_weight: float,
    prior: Tensor | None = None,
) -> SemiSupervised:
    """l_MLE = l_X + lambda_u l_U + lambda_r l_r (ScanMix Eq. 7; DivideMix).

    The first `num_labeled` rows are the labeled ones; with no other rows l_U is zero.
    Shape: (B, C), (B, C) -> four times ().
    """
    labeled = soft_cross_entropy(logits[:num_labeled], targets[:num_labeled])
    rest = logits[num_labeled:]
    unlabeled = probability_mse(rest, targets[num_labeled:]) if len(rest) else logits.new_zeros(())
    penalty = prior_penalty(logits, prior)
    total = labeled + unlabeled_weight * unlabeled + prior_weight * penalty
    return SemiSupervised(total, labeled, unlabeled, penalty)


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE (MoCo, He et al. 2020, Eq. 1): each query is told its own key from all in the queue.

    All rows are L2-normalized; keys and queue take no gradient. Shape: (B, D), (B, D), (K, D) -> ().
    """
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
