"""The clustering stage: neighbors of one class end up in one cluster, and no label is read."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import scanmix.pretrain.scan as module
from scanmix.blocks.clusters import match_clusters
from scanmix.blocks.neighbors import draw_neighbor
from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Diverged
from scanmix.networks.inference import predict_all
from scanmix.networks.peer import Peer, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering, cluster

SMALL = PreActResNetSettings(widths=(8, 16), blocks=(1, 1))


def same_class(labels: Tensor, k: int) -> Tensor:
    """Perfect candidates: k examples of the same class. Shape: (N,) -> (N, K)."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for label in labels.tolist():
        members = (labels == label).nonzero().ravel()
        rows.append(members[torch.randperm(len(members), generator=generator)[:k]])
    return torch.stack(rows)


def made_peer(data: TrainingData) -> Peer:
    return make_peer(SMALL, data, Engine(), "clusterer")


def test_clusters_become_classes_when_neighbors_are_right(textures: TrainingData) -> None:
    mild = ViewSettings(strong_operations=0, cutout=1)  # 8x8 pixels bear little more
    textures = replace(textures, views=make_views(mild, textures.images[:], flip=True))
    peer = made_peer(textures)
    settings = Clustering(epochs=40, batch_size=64, learning_rate=3e-3)
    cluster(settings, peer, same_class(textures.labels, 5), textures, Engine(), None)
    found = predict_all(torch.nn.Sequential(peer.encoder, peer.clusterer), textures).argmax(1)
    names = match_clusters(found, textures.labels, 4)
    assert float((names[found] == textures.labels).float().mean()) > 0.85


def test_cluster_trains_encoder_and_clusterer_and_returns_them(textures: TrainingData) -> None:
    peer = made_peer(textures)
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    found = cluster(Clustering(epochs=1, batch_size=64), peer, same_class(textures.labels, 3), textures, Engine(), None)
    moved = {name for name, value in peer.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if not name.startswith("classifier")}
    assert set(found) == moved
    assert all(torch.equal(found[name], peer.state_dict()[name]) for name in found)


def test_anchors_and_neighbors_are_strong_views_of_the_right_images(
    textures: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is its own index in its first pixels; anchors and partners are recorded as they are seen."""
    images = textures.images[:].clone()
    images[:, 0, 0, 0] = torch.arange(160).to(torch.uint8)
    data = TrainingData(images, textures.labels, 4, textures.views, textures.generator)
    seen: list[Tensor] = []
    partners: list[Tensor] = []
    strong = data.views.strong

    def recorded_view(batch: Tensor, generator: torch.Generator, parts: Sequence[int]) -> Tensor:
        seen.extend(batch[:, 0, 0, 0].long().split(list(parts)))
        return strong(batch, generator, parts)

    def recorded_draw(candidates: Tensor, allowed: Tensor, generator: torch.Generator) -> Tensor:
        assert bool(allowed.all()), "no filter in this stage"
        partners.append(draw_neighbor(candidates, allowed, generator))
        return partners[-1]

    monkeypatch.setattr(data.views, "strong", recorded_view)
    monkeypatch.setattr(module, "draw_neighbor", recorded_draw)
    candidates = same_class(data.labels, 3)
    cluster(Clustering(epochs=2, batch_size=64), made_peer(data), candidates, data, Engine(), None)
    assert len(partners) == 2 and not torch.equal(*partners), "one draw each epoch"
    assert len(seen) == 8, "two epochs of two full batches, anchors and neighbors"
    for epoch, partner in enumerate(partners):
        for anchors, neighbors in ((seen[4 * epoch + i], seen[4 * epoch + i + 1]) for i in (0, 2)):
            assert torch.equal(neighbors, partner[anchors])


def test_a_loss_that_is_no_number_stops_clustering(textures: TrainingData) -> None:
    peer = made_peer(textures)
    torch.nn.init.constant_(peer.clusterer.bias, float("nan"))
    with pytest.raises(Diverged, match="step 1 of scan"):
        cluster(Clustering(epochs=1), peer, same_class(textures.labels, 3), textures, Engine(), None)
