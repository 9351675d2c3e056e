"""Steps of methods whose network stays as it is: its features, and a classifier that was fitted to them.

Legend: N examples, C classes, D features, E directions.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.blocks.discriminant import Discriminants
from scanmix.blocks.logistic import Linear
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Diverged
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, predict_all
from scanmix.networks.neighbor_vote import NeighborVote, empty_directions
from scanmix.networks.peer import Networks, Peer, make_peer


@dataclasses.dataclass
class Voters:
    """State of a method that lets training rows vote."""

    peers: list[Peer]
    rows: Tensor  # (N, E) half precision, features of length 1, or their places along directions
    labels: Tensor  # (N,) the given ones
    weights: Tensor  # (N,) how much the vote of each counts
    reach: Tensor  # (N,) how many vote where this one is nearest
    p_clean: Tensor | None = None  # these methods do not divide the labels
    center: Tensor | None = None  # (D,)
    directions: Tensor | None = None  # (D, E), where features are compared along these


class _Voting(Protocol):
    """A method that lets rows vote."""

    @property
    def most(self) -> int:
        """Most rows that vote."""


def one_network(method: object, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
    """Member `start`: the network as it begins; with pretrained weights, where its settings name some."""
    return Networks([make_peer(network, data, engine, "a")])


def voters(
    method: object, data: TrainingData, network: NetworkSettings, engine: Engine, directions: int | None = None
) -> Voters:
    """Member `start`: the network as it begins, and rows that all count alike, of which the nearest votes alone.

    With `directions` features are compared along so many, which are still to be found.
    """
    peer = make_peer(network, data, engine, "a")
    width = peer.classifier.in_features
    ones = torch.ones(len(data), dtype=torch.int64, device=engine.device)
    rows = torch.zeros(len(data), directions or width, dtype=torch.float16, device=engine.device)
    along = {} if directions is None else empty_directions(width, directions)
    along = {name: tensor.to(engine.device) for name, tensor in along.items()}
    return Voters([peer], rows, data.labels.clone(), ones.float(), ones, **along)


def vote_of_neighbors(method: _Voting, state: Voters) -> Predictor:
    """Member `predictor`: the network, and behind it the vote of the training rows."""
    (peer,) = state.peers
    vote = NeighborVote(
        state.rows, state.labels, state.weights, state.reach, num_classes=peer.classifier.out_features,
        most=min(method.most, len(state.rows)), center=state.center, directions=state.directions,
    )  # fmt: skip
    return Predictor([nn.Sequential(peer.encoder, vote)])


def no_gradients(method: object, count: int) -> int:
    """Member `largest_batch`: 0, as no gradient goes through the network."""
    return 0


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


def set_directions(state: Voters, found: Discriminants, features: Tensor) -> Tensor:
    """Write directions, those that process 0 found, into the state; return the places of features along them.

    Shape: (N, D) -> (N, E).
    """
    assert state.center is not None and state.directions is not None
    (peer,) = state.peers
    state.center.copy_(peer.engine.broadcast(found.center))
    state.directions.copy_(peer.engine.broadcast(found.directions))
    return (features - state.center) @ state.directions


def set_votes(state: Voters, features: Tensor, reach: Tensor, weights: Tensor | None = None) -> None:
    """Write rows, and what process 0 found of them, into the state; the predictors that were made of it follow.

    Shape: features (N, D), or their places along directions (N, E); (N,) int64, (N,); without weights all votes count
    alike.
    """
    (peer,) = state.peers
    state.rows.copy_(peer.engine.broadcast(F.normalize(features, dim=1).half()))
    state.reach.copy_(peer.engine.broadcast(reach))
    if weights is not None:
        state.weights.copy_(peer.engine.broadcast(weights))
