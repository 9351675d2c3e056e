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


def estimate_transition(probabilities: Tensor, quantile: float = 0.97, *, spoil: bool = False) -> Tensor:
    """Return T, T_ij = P(given j | true i), from what a network trained on the given labels predicts.

    Patrini et al., CVPR 2017, Theorem 3: row i is the prediction for the example that looks most like class i, which
    is taken for one of it. Those above the quantile of p_i are set aside as outliers; with a quantile of 1 none is.
    With `spoil` their p_i is zero for all later classes as well, as in the published code, which changes rows of T.
    Shape: (N, C) -> (C, C), rows sum to 1.
    """
    probabilities, rows = probabilities.clone(), []
    for belief in probabilities.T:
        high = torch.quantile(belief, quantile) if quantile < 1 else belief.max()
        rows.append(probabilities[belief.masked_fill(belief > high, -1.0).argmax()].clone())
        if spoil:
            belief[belief > high] = 0.0
    found = torch.stack(rows).double()
    return found / found.sum(1, keepdim=True)
