"""Values of each example over the last epochs. Legend: N examples, H epochs in the history."""

from __future__ import annotations

import torch
from torch import Tensor


def append_epoch(history: Tensor, values: Tensor, length: int) -> Tensor:
    """Append the values of an epoch to a history and keep its last `length` epochs; memory grows with N x `length`.

    Shape: (H, N), (N,) -> (min(H + 1, length), N).
    """
    if length == 1:
        return values.unsqueeze(0)  # the history may be of another number of examples
    return torch.cat([history, values.unsqueeze(0)])[-length:]
