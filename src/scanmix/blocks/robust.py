"""Losses and targets that are robust to wrong labels. Legend: N examples, B batch, C classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.losses import PROBABILITY_FLOOR, confidence_penalty, prior_penalty, soft_cross_entropy
from scanmix.blocks.trust import keep_given

NO_ZERO = 1e-4
"""Probabilities are kept this far from 0 and 1 where log(1 - p) is taken, and in ELR's targets (its published code)."""


def bootstrap_targets(logits: Tensor, targets: Tensor, trust: float | Tensor, *, hard: bool) -> Tensor:
    """Return trust * target + (1 - trust) * prediction (Reed et al., ICLR workshop 2015).

    The prediction is the likeliest class, one-hot, with `hard`, else the softmax; a gradient passes the latter alone.
    `trust` in 0..1 is one number, or one for each row, (B, 1). Shape: (B, C), (B, C) -> (B, C).
    """
    prediction = F.one_hot(logits.argmax(1), logits.shape[1]).to(targets.dtype) if hard else logits.softmax(1)
    return trust * targets + (1 - trust) * prediction


def forward_loss(logits: Tensor, labels: Tensor, transition: Tensor, trusted: Tensor | None = None) -> Tensor:
    """Return the forward-corrected cross-entropy, the mean over the batch of -log sum_i p_i T_iy.

    Patrini et al., CVPR 2017, Theorem 2. T_ij = P(given j | true i): rows are true classes, as in
    `transition.estimate_transition`; entries below PROBABILITY_FLOOR count as that. For a label that is known to be
    right, T is the identity. Shape: (B, C), (B,) int64, (C, C), (B,) bool -> ().
    """
    columns = _known(transition.T[labels], labels, trusted)  # (B, C): T_iy
    log_transition = columns.clamp(min=PROBABILITY_FLOOR).log()
    return -torch.logsumexp(F.log_softmax(logits, 1) + log_transition, 1).mean()


def backward_loss(logits: Tensor, labels: Tensor, inverse: Tensor, trusted: Tensor | None = None) -> Tensor:
    """Return the backward-corrected cross-entropy, the mean over the batch of sum_k (T^-1)_yk (-log p_k).

    Its expectation over noisy labels is the cross-entropy of the true ones (Patrini et al., CVPR 2017, Theorem 1).
    `inverse` is T^-1; its entries may be negative, so the loss is not bounded from below. For a label that is known to
    be right, T is the identity. Shape: (B, C), (B,) int64, (C, C), (B,) bool -> ().
    """
    return soft_cross_entropy(logits, _known(inverse[labels], labels, trusted))


def _known(rows: Tensor, labels: Tensor, trusted: Tensor | None) -> Tensor:
    """Return rows of a matrix with those of the identity for labels that are known to be right. Shape: (B, C)."""
    return keep_given(rows, F.one_hot(labels, rows.shape[1]).to(rows), trusted)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, power: float) -> Tensor:
    """Return (1 - p_y^q) / q: cross-entropy as q goes to 0, mean absolute error (up to a factor of 2) at q = 1.

    L_q of Zhang and Sabuncu, NeurIPS 2018, Eq. 6. `power` is q, in 0..1 without 0. Shape: (B, C), (B,) int64 -> (B,).
    """
    log_prob = F.log_softmax(logits, 1).gather(1, labels.unsqueeze(1)).squeeze(1)
    return -(power * log_prob).expm1() / power


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_of_zero: float) -> Tensor:
    """Return -sum_c p_c log t_c, where t is the label one-hot and log 0 is taken as `log_of_zero` (A, below 0).

    It is -A (1 - p_y) (Wang et al., ICCV 2019, Eq. 6 and section 3.2). Shape: (B, C), (B,) int64 -> (B,).
    """
    return -log_of_zero * (1 - logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1))


def early_learning_term(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ELR's regularizer, the mean over the batch of log(1 - <t, p>) (Liu et al., NeurIPS 2020).

    It falls as the prediction p approaches t, the running mean of earlier predictions (`running_targets`). `targets`
    is t and should take no gradient. Shape: (B, C), (B, C) -> ().
    """
    probs = logits.softmax(1).clamp(NO_ZERO, 1 - NO_ZERO)
    return (1 - (targets * probs).sum(1)).log().mean()


def running_targets(targets: Tensor, logits: Tensor, momentum: float, clamp: float = 0.0) -> Tensor:
    """Return momentum * t + (1 - momentum) * p: the running mean t of predictions in ELR (Liu et al., NeurIPS 2020).

    The result has no gradient. `momentum` in 0..1. Probabilities are first kept `clamp` away from 0 and 1, and
    scaled to a sum of 1: ELR's code does so with NO_ZERO, ELR+'s does not. Shape: (B, C), (B, C) -> (B, C).
    """
    probs = logits.detach().softmax(1).clamp(clamp, 1 - clamp)
    return momentum * targets + (1 - momentum) * probs / probs.sum(1, keepdim=True)


def relabeling_loss(logits: Tensor, targets: Tensor, prior_weight: float, entropy_weight: float) -> Tensor:
    """Return soft cross-entropy, and what keeps targets that follow the predictions from becoming one class, or flat.

    Tanaka et al., CVPR 2018, Eq. 5: + prior_weight x KL(uniform || mean prediction) + entropy_weight x the mean entropy
    of the predictions. Shape: (B, C), (B, C) -> ().
    """
    entropy = -confidence_penalty(logits)
    return soft_cross_entropy(logits, targets) + prior_weight * prior_penalty(logits) + entropy_weight * entropy


def divergence_from(logits: Tensor, label_logits: Tensor) -> Tensor:
    """Return the mean over the batch of KL(p || softmax(label_logits)), with gradients for both.

    PENCIL (Yi and Wu, CVPR 2019). The prediction p is the first argument of KL, so that labels far from it move
    fastest. Shape: (B, C), (B, C) -> ().
    """
    log_probs = F.log_softmax(logits, 1)
    return (log_probs.exp() * (log_probs - F.log_softmax(label_logits, 1))).sum(1).mean()
