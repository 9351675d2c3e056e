"""The label-free stages in their order: SimCLR or MoCo-v2, neighbors, clustering. Each is kept by its content key.

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
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.files.tensors import Tensors
from scanmix.networks.encoders import Encoder, NetworkSettings
from scanmix.networks.inference import per_sample_losses, predict_all
from scanmix.networks.peer import Peer, make_encoder, make_peer
from scanmix.pretrain.cache import cached, content_key
from scanmix.pretrain.moco import MoCo, moco
from scanmix.pretrain.scan import Clustering, cluster
from scanmix.pretrain.simclr import SimCLR, simclr


def _which(settings: Any) -> str:
    """Tell the settings of the two apart, as a table or made; `build` names the kind of a table."""
    return "moco" if isinstance(settings, MoCo) or (isinstance(settings, Mapping) and "kind" in settings) else "simclr"


Pretraining: TypeAlias = Annotated[
    Annotated[SimCLR, Tag("simclr")] | Annotated[MoCo, Tag("moco")], Discriminator(_which)
]
"""How features are learned without labels: SimCLR, or where a table says `kind = "moco"`, MoCo-v2."""


class Pretrained(NamedTuple):
    """What the stages leave behind."""

    neighbors: Tensor
    """(N, K) int64, self excluded, nearest first; K is N - 1 where there are no more others."""
    encoder: Tensors
    """Empty when both stages are left out."""
    clusterer: Tensors
    """Empty when the clustering stage is left out."""


def pretrain(
    pretraining: Pretraining,
    clustering: Clustering,
    num_neighbors: int,
    include_self: bool,
    data: TrainingData,
    network: NetworkSettings,
    engine: Engine,
) -> Pretrained:
    """Run or recall SimCLR or MoCo-v2, the mining of neighbors and SCAN. No label is read.

    A stage of no epochs is left out. Without the first the neighbors are those of the plain views themselves.
    """
    stage = "moco" if isinstance(pretraining, MoCo) else "simclr"
    made_of = {
        "images": data.fingerprint(),
        "views": data.views.contrastive_settings(),
        "network": dataclasses.asdict(network),
        stage: {name: value for name, value in dataclasses.asdict(pretraining).items() if name != "exact_neighbors"},
        "seed": engine.seed,
        **engine.arithmetic(),
    }
    encoder = make_encoder(network, data.images.shape[1], engine, "encoder")
    if pretraining.epochs == 0:
        first: Tensors = {"embedding": predict_all(nn.Flatten(), data, engine)}
    else:
        first = cached(
            engine,
            stage,
            content_key(made_of),
            lambda unfinished: _features(pretraining, encoder, data, engine, unfinished),
            lambda found: _is_of(under("encoder.", found), encoder) and found["embedding"].shape[:1] == (len(data),),
        )
    encoder_weights = under("encoder.", first)
    embedding, wanted = first["embedding"].to(engine.device), min(num_neighbors, len(data) - 1)
    neighbors = engine.broadcast(nearest_neighbors(embedding, wanted, pretraining.exact_neighbors))
    if clustering.epochs == 0:
        return Pretrained(neighbors, encoder_weights, {})

    peer = make_peer(network, data, engine, "clusterer")
    if encoder_weights:
        peer.encoder.load_state_dict(encoder_weights)
    made_of |= {
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
        content_key(made_of),
        lambda unfinished: cluster(clustering, peer, candidates, data, engine, unfinished),
        lambda found: _is_of(found, nn.ModuleDict({"encoder": peer.encoder, "clusterer": peer.clusterer})),
    )
    return Pretrained(neighbors, under("encoder.", second), under("clusterer.", second))


def _features(
    settings: Pretraining, encoder: Encoder, data: TrainingData, engine: Engine, unfinished: Path | None
) -> Tensors:
    """Train the encoder by the stage that these settings are of."""
    if isinstance(settings, MoCo):
        return moco(settings, encoder, data, engine, unfinished)
    return simclr(settings, encoder, data, engine, unfinished)


def _is_of(tensors: Tensors, module: nn.Module) -> bool:
    """Whether tensors are the weights of such a module, as far as names and shapes tell."""
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: tensor.shape for name, tensor in tensors.items()} == wanted


def candidate_neighbors(neighbors: Tensor, include_self: bool) -> Tensor:
    """Put each example before its neighbors, as the published code does.

    In 32 bits: of a million examples it is the largest table that a run keeps and saves.
    Shape: (N, K) -> (N, K + 1) int32, or (N, K) without `include_self`.
    """
    neighbors = neighbors.int()
    if not include_self:
        return neighbors
    own = torch.arange(len(neighbors), device=neighbors.device, dtype=torch.int32).unsqueeze(1)
    return torch.cat([own, neighbors], 1)


def current_neighbors(peers: Sequence[Peer], data: TrainingData, num_neighbors: int, include_self: bool) -> Tensor:
    """Search for neighbors in what the encoders say now: of both peers, for either may be wrong alone.

    The cosine of two examples is the mean of the peers' cosines. Shape: -> as `candidate_neighbors`.
    """
    engine = peers[0].engine
    features = torch.cat([F.normalize(predict_all(peer.encoder, data, engine), dim=1) for peer in peers], 1)
    neighbors = nearest_neighbors(features, min(num_neighbors, len(data) - 1))
    return candidate_neighbors(engine.broadcast(neighbors), include_self)


def load_into(peers: Sequence[Peer], pretrained: Pretrained, named_by: TrainingData | None = None) -> None:
    """Give peers the pre-trained encoder, where there is one; both heads start as the clustering head, if any.

    Where there are labels that may name the clusters (`name_clusters`), the classifier's are named.
    """
    for peer in peers:
        if pretrained.encoder:
            peer.encoder.load_state_dict(pretrained.encoder)
        if pretrained.clusterer:
            peer.clusterer.load_state_dict(pretrained.clusterer)
            peer.classifier.load_state_dict(pretrained.clusterer)
        if named_by is not None:
            name_clusters(peer, named_by)


def name_clusters(peer: Peer, data: TrainingData) -> None:
    """Order the classifier's outputs by the classes that the given labels, noise and all, vote for.

    A classifier that starts as the clustering head must first learn which cluster is which class. One count over
    all examples answers that better than the few steps of gradient descent that small data affords.
    """
    classes = match_clusters(per_sample_losses(peer, data).prediction, data.labels, data.num_classes)
    rename_outputs(peer.classifier, classes)


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
