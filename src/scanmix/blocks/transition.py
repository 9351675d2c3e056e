"""The noise matrix: which labels the images of each class were given. Legend: N examples, C classes."""

from __future__ import annotations

import torch
from torch import Tensor


def expected_confusion(posterior: Tensor, labels: Tensor) -> Tensor:
    """Expected counts: rows are true classes, columns given labels. Shape: (N, C), (N,) -> (C, C) float64."""
    count = posterior.shape[1]
    return torch.zeros(count, count, dtype=torch.float64).index_add_(0, labels, posterior.double()).T.contiguous()


def transition_matrix(confusion: Tensor) -> Tensor:
    """Share of each true class that was given each label; a class nobody belongs to keeps a row of zeros.

    Shape: (C, C) -> (C, C).
    """
    return confusion / confusion.sum(1, keepdim=True).clamp(min=torch.finfo(confusion.dtype).tiny)
