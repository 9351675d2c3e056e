"""Networks without training: predictions, features and per-sample losses.

Legend: N examples, B batch, C classes, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import SINGLE_PROCESS, Engine
from scanmix.networks.peer import Peer

INFERENCE_BATCH = 512
"""Most examples in one forward pass."""


class Predictor(nn.Module):
    """The networks of a finished run as one: the sum of their logits."""

    def __init__(self, members: list[nn.Module]) -> None:
        """Hold the members; each maps examples to logits (B, C)."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the sum of the members' logits. Shape: normalized images (B, channels, H, W) -> (B, C)."""
        return torch.stack([member(images) for member in self.members]).sum(0)


@contextmanager
def inference(network: nn.Module, *, batch_statistics: bool) -> Iterator[None]:
    """Compute without gradients inside the block; the mode of the network is restored after it.

    With `batch_statistics` batch norm uses the statistics of the batch and updates its running ones (train mode), else
    it uses the running ones (eval mode).
    """
    was_training = network.training
    network.train(batch_statistics)
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)


@contextmanager
def unchanged_statistics(network: nn.Module) -> Iterator[None]:
    """Give the network back the running statistics, and all other buffers, that it had before the block."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, kept in zip(network.buffers(), before, strict=True):
            buffer.copy_(kept)


def predict_all(network: nn.Module, data: TrainingData, engine: Engine = SINGLE_PROCESS) -> Tensor:
    """Return the outputs of the network for the eval views of all examples, in order, in eval mode without gradients.

    The processes of the engine share the work, and each gets all rows; memory grows with N x the width of the output.
    Shape: -> (N, ...).
    """
    with inference(network, batch_statistics=False):
        return torch.cat(
            list(engine.sharded_map(len(data), INFERENCE_BATCH, lambda part: network(data.eval_view(part))))
        )


def predict_rows(network: nn.Module, data: TrainingData, rows: Tensor, engine: Engine = SINGLE_PROCESS) -> Tensor:
    """Return what `predict_all` returns, of the examples at `rows` alone. Shape: (M,) int64 -> (M, ...)."""
    with inference(network, batch_statistics=False):
        parts = engine.sharded_map(len(rows), INFERENCE_BATCH, lambda part: network(data.eval_view(rows[part])))
        return torch.cat(list(parts))


def classify(peer: Peer) -> nn.Module:
    """Return the peer's encoder and classifier as one network that shares their weights.

    Shape of the network: (B, channels, H, W) -> logits (B, C).
    """
    return nn.Sequential(peer.encoder, peer.classifier)


class PerSample(NamedTuple):
    """A peer's loss and prediction for every example."""

    losses: Tensor
    """(N,) cross-entropy of the given label, in nats."""
    prediction: Tensor
    """(N,) int64, the predicted class."""


def per_sample_losses(peer: Peer, data: TrainingData) -> PerSample:
    """Return the cross-entropy of each given label and the predicted class of each example, from one `predict_all`."""
    logits = predict_all(classify(peer), data, peer.engine)
    return PerSample(F.cross_entropy(logits, data.labels, reduction="none"), logits.argmax(1))


def frozen_copy(network: nn.Module) -> nn.Module:
    """Return a copy of the network in eval mode whose weights take no gradient."""
    return copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
