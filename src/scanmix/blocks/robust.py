"""Losses and targets that do not take a given label at its word. Legend: N examples, B batch, C classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.losses import PROBABILITY_FLOOR, soft_cross_entropy

NO_ZERO = 1e-4
"""Probabilities are kept this far from 0 and 1 where a logarithm of them, or of what is left, is taken (ELR)."""


def bootstrap_targets(logits: Tensor, targets: Tensor, trust: float | Tensor, *, hard: bool) -> Tensor:
    """Return trust * target + (1 - trust) * what the network says: its likeliest class, or all it predicts.

    Reed et al., ICLR workshop 2015, hard and soft. `trust` is one number, or one for each row, (B, 1).
    Shape: (B, C), (B, C) -> (B, C).
    """
    said = F.one_hot(logits.argmax(1), logits.shape[1]).to(targets.dtype) if hard else logits.softmax(1)
    return trust * targets + (1 - trust) * said


def forward_loss(logits: Tensor, labels: Tensor, transition: Tensor) -> Tensor:
    """Cross-entropy of the label that the true class would be given: -log sum_i p_i T_iy, a mean over the batch.

    Patrini et al., CVPR 2017, Theorem 2. T is given as rows of true classes. Shape: (B, C), (B,), (C, C) -> ().
    """
    toward = transition.T[labels].clamp(min=PROBABILITY_FLOOR).log()  # (B, C): log T_iy
    return -torch.logsumexp(F.log_softmax(logits, 1) + toward, 1).mean()


def backward_loss(logits: Tensor, labels: Tensor, inverse: Tensor) -> Tensor:
    """Cross-entropy whose mean over wrong labels is that of the true ones: sum_k (T^-1)_yk (-log p_k).

    Patrini et al., CVPR 2017, Theorem 1. Weights may be negative and the loss is not bounded from below.
    Shape: (B, C), (B,), (C, C) -> ().
    """
    return soft_cross_entropy(logits, inverse[labels])


def early_learning_term(logits: Tensor, remembered: Tensor) -> Tensor:
    """Mean of log(1 - <q, p>): the lower, the nearer p is to what was predicted before labels were memorized.

    Liu et al., NeurIPS 2020; `remembered` is q, which takes no gradient. Shape: (B, C), (B, C) -> ().
    """
    probs = logits.softmax(1).clamp(NO_ZERO, 1 - NO_ZERO)
    return (1 - (remembered * probs).sum(1)).log().mean()


def running_targets(before: Tensor, logits: Tensor, keep: float) -> Tensor:
    """Return keep * q + (1 - keep) * p: the exponential average of predictions that ELR calls t.

    Liu et al., NeurIPS 2020. Shape: (B, C), (B, C) -> (B, C).
    """
    probs = logits.detach().softmax(1).clamp(NO_ZERO, 1 - NO_ZERO)
    return keep * before + (1 - keep) * probs / probs.sum(1, keepdim=True)


def divergence_from(logits: Tensor, label_logits: Tensor) -> Tensor:
    """Mean of KL(p || softmax(label_logits)), with gradients for both. Shape: (B, C), (B, C) -> ().

    PENCIL (Yi and Wu, CVPR 2019): the prediction stands first, so that far away labels move fastest.
    """
    log_probs = F.log_softmax(logits, 1)
    return (log_probs.exp() * (log_probs - F.log_softmax(label_logits, 1))).sum(1).mean()
