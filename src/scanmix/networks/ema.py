"""Exponential moving averages (EMA) of networks."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update `average` in place: decay * average + (1 - decay) * network, for weights and running statistics.

    Integer buffers, such as counts of batches, are copied. `decay` in 0..1; both networks have the same layers.
    """
    current = network.state_dict()
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], 1 - decay)
        else:
            tensor.copy_(current[name])
