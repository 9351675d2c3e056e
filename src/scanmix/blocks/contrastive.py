"""Contrastive learning with labels (MOIT: Ortego et al., CVPR 2021). Legend: B rows, K keys, D features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def supervised_contrast(
    anchors: Tensor, keys: Tensor, labels: Tensor, key_labels: Tensor, temperature: float
) -> Tensor:
    """Return the supervised contrastive loss of each anchor: keys with its label are its positives.

    Khosla et al., NeurIPS 2020, L_out: the mean over the positives p of -log(exp(a p / T) / sum_k exp(a k / T)). The
    first keys are the anchors themselves; no anchor is compared with itself. 0 for an anchor without positives.
    Rows are L2-normalized. Memory grows with B x K. Shape: (B, D), (K, D), (B,), (K,) -> (B,).
    """
    itself = torch.eye(len(anchors), len(keys), dtype=torch.bool, device=anchors.device)
    log_share = F.log_softmax((anchors @ keys.T / temperature).masked_fill(itself, float("-inf")), 1)
    positive = (labels.unsqueeze(1) == key_labels) & ~itself
    return -log_share.masked_fill(~positive, 0.0).sum(1) / positive.sum(1).clamp(min=1)


def interpolated_contrast(
    anchors: Tensor, keys: Tensor, labels: Tensor, partners: Tensor, weights: Tensor, key_labels: Tensor,
    temperature: float,
) -> Tensor:  # fmt: skip
    """Return interpolated contrastive learning, the mean of w L(label) + (1 - w) L(label of the partner).

    An anchor is of an image that is mixed with its partner by weight w in 0..1; keys have the label of the image that
    dominates. L is `supervised_contrast`. Shape: (B, D), (K, D), (B,), (B,), (B,), (K,) -> ().

    Args:
        anchors: embeddings of mixed images.
        keys: those that they are compared with; the first are the anchors themselves.
        labels: of the images.
        partners: labels of their partners.
        weights: w.
        key_labels: of the keys.
        temperature: T.
    """
    first = supervised_contrast(anchors, keys, labels, key_labels, temperature)
    second = supervised_contrast(anchors, keys, partners, key_labels, temperature)
    return (weights * first + (1 - weights) * second).mean()
