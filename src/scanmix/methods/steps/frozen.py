"""Steps of methods whose network stays as it is: its features, and a classifier that was fitted to them."""

from __future__ import annotations

import torch
from torch import Tensor

from scanmix.blocks.logistic import Linear
from scanmix.data.batches import TrainingData
from scanmix.distributed.meter import Diverged
from scanmix.networks.inference import predict_all
from scanmix.networks.peer import Peer


def frozen_features(peer: Peer, data: TrainingData) -> Tensor:
    """Return the features of all eval views. Shape: -> (N, D) finite.

    Raises:
        Diverged: a feature is infinite or NaN.
    """
    features = predict_all(peer.encoder, data, peer.engine)
    if not bool(features.isfinite().all()):
        raise Diverged("the network gives features that are infinite or NaN; check its weights and the data")
    return features


def set_classifier(peer: Peer, found: Linear) -> None:
    """Write a fitted classifier into the peer: that of process 0, where there are several."""
    with torch.no_grad():
        peer.classifier.weight.copy_(peer.engine.broadcast(found.weight))
        peer.classifier.bias.copy_(peer.engine.broadcast(found.bias))
