"""The self-supervised stages in order: SimCLR or MoCo-v2, neighbors, clustering. Training stages are cached.

Legend: N examples, K neighbors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Discriminator, Tag
from torch import Tensor, nn

from scanmix.blocks.clusters import match_clusters, rename_outputs
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.propagated_classes import NEIGHBORS, Head, least_squares_head, propagated_classes
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.files.tensors import Tensors
from scanmix.networks.encoders import NetworkSettings, hashed_network
from scanmix.networks.inference import per_sample_losses, predict_all
from scanmix.networks.peer import Peer, make_encoder, make_peer
from scanmix.pretrain.cache import cached, content_key
from scanmix.pretrain.moco import MoCo, moco
from scanmix.pretrain.scan import Clustering, cluster
from scanmix.pretrain.simclr import SimCLR, simclr


def _which(settings: Any) -> str:
    """Return the tag of settings, which are a table or an object; a table of MoCo's has the key `kind`."""
    return "moco" if isinstance(settings, MoCo) or (isinstance(settings, Mapping) and "kind" in settings) else "simclr"


Pretraining: TypeAlias = Annotated[
    Annotated[SimCLR, Tag("simclr")] | Annotated[MoCo, Tag("moco")], Discriminator(_which)
]
"""Settings of the first stage: SimCLR's, or those of MoCo-v2 where a table says `kind = "moco"`."""


class Pretrained(NamedTuple):
    """Results of the stages."""

    neighbors: Tensor
    """(N, K) int64, self excluded, nearest first; K is N - 1 where N is not larger than the number asked for."""
    encoder: Tensors
    """Weights by name; empty when both training stages are left out."""
    clusterer: Tensors
    """Weights by name; empty when the clustering stage is left out."""


def pretrain(
    pretraining: Pretraining,
    clustering: Clustering,
    num_neighbors: int,
    include_self: bool,
    data: TrainingData,
    network: NetworkSettings,
    engine: Engine,
) -> Pretrained:
    """Run SimCLR or MoCo-v2, the search for neighbors and SCAN, or read results from the cache. No label is used.

    A stage with 0 epochs is left out. Without the first stage the neighbors are those of the eval views themselves, or
    of the features of an encoder that starts from given weights. They are searched in every run: they are not cached.

    Args:
        pretraining: settings of the first stage.
        clustering: settings of the last stage.
        num_neighbors: K, cut to N - 1.
        include_self: SCAN may draw an image as its own neighbor, as in the published code.
        data: the images; labels are not read.
        network: settings of the encoder.
        engine: where to compute, and the cache.

    Raises:
        UserError: the stages cannot run on this data, such as a MoCo queue longer than the number of images.
    """
    key_parts = _parts_of_key(pretraining, data, network, engine)
    first = _features(pretraining, network, data, engine, key_parts)
    encoder_weights = under("encoder.", first)
    embedding, count = first["embedding"].to(engine.device), min(num_neighbors, len(data) - 1)
    neighbors = engine.broadcast(nearest_neighbors(embedding, count, pretraining.exact_neighbors))
    if clustering.epochs == 0:
        return Pretrained(neighbors, encoder_weights, {})

    peer = make_peer(network, data, engine, "clusterer")
    if encoder_weights:
        peer.encoder.load_state_dict(encoder_weights)
    key_parts |= {
        "scan": dataclasses.asdict(clustering),
        "strong": data.views.strong_settings(),
        "neighbors": num_neighbors,
        "exact": len(data) <= pretraining.exact_neighbors,
        "include_self": include_self,
        "clusters": data.num_classes,
    }
    candidates = candidate_neighbors(neighbors, include_self)
    second = cached(
        engine,
        "scan",
        content_key(key_parts),
        lambda unfinished: cluster(clustering, peer, candidates, data, engine, unfinished),
        lambda found: _is_of(found, nn.ModuleDict({"encoder": peer.encoder, "clusterer": peer.clusterer})),
    )
    return Pretrained(neighbors, under("encoder.", second), under("clusterer.", second))


def _parts_of_key(
    settings: Pretraining, data: TrainingData, network: NetworkSettings, engine: Engine
) -> dict[str, Any]:
    """Return all that decides the result of the first stage."""
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name != "exact_neighbors"}
    return {
        "images": data.fingerprint(),
        "views": data.views.contrastive_settings(),
        "network": hashed_network(network),
        _which(settings): values,
        "seed": engine.seed,
        **engine.arithmetic(),
    }


def _features(
    settings: Pretraining, network: NetworkSettings, data: TrainingData, engine: Engine, key_parts: Mapping[str, Any]
) -> Tensors:
    """Return the weights of the encoder as `encoder.*` and the rows to mine neighbors of as `embedding` (N, D).

    They come from the cache or from training; with 0 epochs there are no weights, and the rows are the eval views, or
    what the encoder makes of them where it starts from weights that have seen pictures.
    """
    encoder = make_encoder(network, data.images.shape[1], engine, "encoder")
    if settings.epochs == 0:
        return {"embedding": predict_all(encoder if network.starts_trained() else nn.Flatten(), data, engine)}

    def compute(unfinished: Path | None) -> Tensors:
        if isinstance(settings, MoCo):
            return moco(settings, encoder, data, engine, unfinished)
        return simclr(settings, encoder, data, engine, unfinished)

    def fits(found: Tensors) -> bool:
        return _is_of(under("encoder.", found), encoder) and found["embedding"].shape[:1] == (len(data),)

    return cached(engine, _which(settings), content_key(key_parts), compute, fits)


def _is_of(tensors: Tensors, module: nn.Module) -> bool:
    """Whether tensors have the names and shapes of a module's weights."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: tensor.shape for name, tensor in tensors.items()} == expected


def candidate_neighbors(neighbors: Tensor, include_self: bool) -> Tensor:
    """Return the neighbors as candidates for SCAN: with `include_self` each example stands before its neighbors.

    32-bit integers, because for a million examples this is the largest table that a run keeps and saves.
    Shape: (N, K) -> (N, K + 1) int32, or (N, K) int32 without `include_self`.
    """
    neighbors = neighbors.int()
    if not include_self:
        return neighbors
    itself = torch.arange(len(neighbors), device=neighbors.device, dtype=torch.int32).unsqueeze(1)
    return torch.cat([itself, neighbors], 1)


def current_neighbors(peers: Sequence[Peer], data: TrainingData, num_neighbors: int, include_self: bool) -> Tensor:
    """Search for neighbors in the current features of all peers.

    The similarity of two examples is the mean over peers of their cosines. Memory grows with N x P x D for P peers of
    D features. Shape: -> (N, K + 1) int32, or (N, K) without `include_self`.
    """
    engine = peers[0].engine
    features = torch.cat([F.normalize(predict_all(peer.encoder, data, engine), dim=1) for peer in peers], 1)
    neighbors = nearest_neighbors(features, min(num_neighbors, len(data) - 1))
    return candidate_neighbors(engine.broadcast(neighbors), include_self)


def load_into(
    peers: Sequence[Peer],
    pretrained: Pretrained,
    named_by: TrainingData | None = None,
    propagated_from: TrainingData | None = None,
) -> None:
    """Load the pre-trained encoder into peers, where there is one, and the clustering head, if any, into both heads.

    Args:
        peers: networks that start alike.
        pretrained: what `pretrain` found.
        named_by: its given labels name the outputs of the classifier (`name_clusters`).
        propagated_from: both heads begin with the classes that its given labels lead to (`propagate_classes`).
    """
    for peer in peers:
        if pretrained.encoder:
            peer.encoder.load_state_dict(pretrained.encoder)
        if pretrained.clusterer:
            peer.clusterer.load_state_dict(pretrained.clusterer)
            peer.classifier.load_state_dict(pretrained.clusterer)
        if named_by is not None:
            name_clusters(peer, named_by)
    if propagated_from is not None:
        propagate_classes(peers, propagated_from)


def propagate_classes(peers: Sequence[Peer], data: TrainingData) -> None:
    """Set both heads of all peers to the classes that the given labels lead to among the features of the first peer.

    Memory grows with N x D for D features. Neighbors are searched anew, in what the encoder sees rather than in the
    projections of SimCLR: on the digits 97.6 % of ten neighbors have the same class, of the projections' 96.5 %.
    """
    engine = peers[0].engine
    features = predict_all(peers[0].encoder, data, engine)
    neighbors = nearest_neighbors(features, min(NEIGHBORS, len(data) - 1))
    probes = data.generator("propagation", 0, "probes")
    classes = propagated_classes(neighbors, data.labels, data.num_classes, probes, trusted=data.trusted)
    found = least_squares_head(features, classes)
    head = Head(*map(engine.broadcast, found))
    for layer in (layer for peer in peers for layer in (peer.classifier, peer.clusterer)):
        layer.load_state_dict(head._asdict())


def name_clusters(peer: Peer, data: TrainingData) -> None:
    """Reorder the classifier's outputs, in place, so that clusters match the classes of most given labels in them.

    A classifier that starts as the clustering head must first learn which cluster is which class. Counting over all
    examples (noisy labels included) finds this where small data allows few steps of gradient descent.
    """
    classes = match_clusters(per_sample_losses(peer, data).prediction, data.labels, data.num_classes)
    rename_outputs(peer.classifier, classes)


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors whose names begin with `prefix`, under their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
