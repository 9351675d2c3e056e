"""Networks that answer and do not learn: predictions, features and per-sample losses.

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


class Predictor(nn.Module):
    """What is left of a run when training is over: networks whose logits are added up."""

    def __init__(self, members: list[nn.Module]) -> None:
        """Take the members over; each maps (B, C, H, W) to logits."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Sum of the members' logits. Shape: normalized images -> (B, C)."""
        return torch.stack([member(images) for member in self.members]).sum(0)


@contextmanager
def inference(network: nn.Module, *, batch_statistics: bool) -> Iterator[None]:
    """No gradients; batch statistics used and updated, or the running ones. Restores the mode."""
    was_training = network.training
    network.train(batch_statistics)
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)


def predict_all(network: nn.Module, data: TrainingData, engine: Engine = SINGLE_PROCESS) -> Tensor:
    """One evaluation-mode pass without gradients over the plain views, in order. Shape: -> (N, ...)."""
    with inference(network, batch_statistics=False):
        return torch.cat(
            list(engine.sharded_map(len(data), INFERENCE_BATCH, lambda part: network(data.eval_view(part))))
        )


def classify(peer: Peer) -> nn.Module:
    """Return encoder and classifier as one network, sharing weights. Shape: (B, C, H, W) -> logits (B, C)."""
    return nn.Sequential(peer.encoder, peer.classifier)


class PerSample(NamedTuple):
    """What a peer holds of every example: loss of the given label (N,), predicted class (N,)."""

    losses: Tensor
    prediction: Tensor


def per_sample_losses(peer: Peer, data: TrainingData) -> PerSample:
    """One sweep: the cross-entropy of each given label and the prediction of each example."""
    logits = predict_all(classify(peer), data, peer.engine)
    return PerSample(F.cross_entropy(logits, data.labels, reduction="none"), logits.argmax(1))


def frozen_copy(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that takes no gradient."""
    return copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
