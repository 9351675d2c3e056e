"""The transition matrix of label noise, T_ij = P(given label j | true class i). Legend: N examples, C classes."""

from __future__ import annotations

import torch
from torch import Tensor


def expected_confusion(posterior: Tensor, labels: Tensor) -> Tensor:
    """Return the expected number of examples of each true class (rows) with each given label (columns).

    `posterior` holds P(true class) of each example. Shape: (N, C), (N,) int64 -> (C, C) float64.
    """
    count = posterior.shape[1]
    found = posterior.new_zeros(count, count, dtype=torch.float64)
    return found.index_add_(0, labels, posterior.double()).T.contiguous()


def transition_matrix(confusion: Tensor) -> Tensor:
    """Normalize the rows of expected counts: the share 0..1 of each true class that was given each label.

    A class without examples keeps a row of zeros.

    Shape: (C, C) -> (C, C).
    """
    return confusion / confusion.sum(1, keepdim=True).clamp(min=torch.finfo(confusion.dtype).tiny)


def estimate_transition(probabilities: Tensor, quantile: float = 0.97, *, spoil: bool = False) -> Tensor:
    """Return T from the predictions of a network that was trained on the given labels.

    Patrini et al., CVPR 2017, Theorem 3: row i is the prediction p of the example with the largest p_i, which is taken
    to belong to class i. Examples whose p_i is above the quantile (0..1) are left out as outliers; with 1 none is.
    With `spoil` the p_i of these outliers stays 0 for all later classes, as in the published code, which changes T.
    Works on a copy, so memory grows with N x C.
    Shape: (N, C) in 0..1 -> (C, C) float64, rows sum to 1.
    """
    probabilities, rows = probabilities.clone(), []
    for column in probabilities.T:
        high = torch.quantile(column, quantile) if quantile < 1 else column.max()
        rows.append(probabilities[column.masked_fill(column > high, -1.0).argmax()].clone())
        if spoil:
            column[column > high] = 0.0  # a view: this writes into `probabilities`
    found = torch.stack(rows).double()
    return found / found.sum(1, keepdim=True)
