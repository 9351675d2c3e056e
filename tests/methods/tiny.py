"""Training on the 64 tiny images of `data`, and comparing what came of it."""

from typing import Any

import torch
from torch import Tensor, nn

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import Method
from scanmix.networks.preact_resnet import PreActResNetSettings

Network = PreActResNetSettings
KIND = torch.arange(64) % 4
"""True classes; a third of the labels is not these."""


def run(method: Method, data: TrainingData, network: Network, epochs: int | None = None) -> Any:
    """State after so many epochs, or after all."""
    state = method.start(data, network, Engine())
    for epoch in range(method.epochs if epochs is None else epochs):
        method.epoch(state, data, epoch)
    return state


def weights(part: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in part.parameters()]


def near(first: list[Tensor], second: list[Tensor], atol: float = 0.0) -> bool:
    """Whether no weight differs by more."""
    return all(torch.allclose(one, other, atol=atol, rtol=0) for one, other in zip(first, second, strict=True))
