"""Labels that are known to be right: they weigh fully, and nothing takes their place.

Where nothing is known, `trusted` is None, and both functions return what they are given. Legend: B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pinned(weights: Tensor, trusted: Tensor | None) -> Tensor:
    """Return weights, or a choice, with 1 (True) for each label that is known to be right.

    Shape: (..., B) in 0..1 or bool, (B,) bool -> (..., B).
    """
    return weights if trusted is None else weights.masked_fill(trusted, 1)


def keep_given(targets: Tensor, given: Tensor, trusted: Tensor | None) -> Tensor:
    """Return targets, or labels, with the given one for each label that is known to be right.

    Shape: (B, ...), (B, ...) of the same type, (B,) bool -> (B, ...).
    """
    if trusted is None:
        return targets
    return torch.where(trusted.view(-1, *[1] * (targets.ndim - 1)), given, targets)
