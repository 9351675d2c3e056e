"""Shares of the true classes, found from given labels and from what is seen without them.

Legend: N examples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scanmix.blocks.label_likelihood import log_likelihood, symmetric, symmetric_rate, transition_by_em
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.propagation import sinkhorn

TEMPERATURE = 3.0
"""Factor of the propagated scores."""
EVEN = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far from the shares of the given labels toward even ones the shares of the classes may lie."""


def likeliest_shares(scores: Tensor, labels: Tensor, left_out: Tensor | None = None) -> Tensor:
    """Return the shares of the true classes under which the labels are likeliest, but for those that are left out.

    A class that loses more labels than it gets has more examples than labels. Balanced to the shares of the labels, v
    would hand some of its examples to another class. Candidates lie between these shares and even ones (`EVEN`); a
    class without labels has none. T is the mean of the likeliest and the likeliest symmetric one, as few labels tell
    little of C x C numbers. Shape: scores without the own label (N, C), (N,), (N,) bool -> (C,) with sum 1.
    """
    judged = slice(None) if left_out is None else ~left_out
    seen = labels.bincount(minlength=scores.shape[1]).to(scores) / len(labels)
    even = (seen > 0) / (seen > 0).sum()
    best = seen, -torch.inf
    for part in EVEN:
        shares = torch.lerp(seen, even, part)
        v = sinkhorn(TEMPERATURE * scores, shares)[judged]
        plain = symmetric(symmetric_rate(self_confidence(v, labels[judged]), len(seen)), len(seen))
        transition = torch.lerp(transition_by_em(v, labels[judged], plain), plain, 0.5)
        likelihood = log_likelihood(v, transition, labels[judged])
        best = max(best, (shares, likelihood), key=lambda found: found[1])
    return best[0]
