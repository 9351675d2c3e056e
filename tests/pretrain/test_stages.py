"""The label-free stages together: their order, their cache, and what a cut leaves behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix.pretrain.cache as artifacts
import scanmix.pretrain.stages as module
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.files.tensors import Tensors
from scanmix.networks.peer import Peer, make_encoder, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering, cluster
from scanmix.pretrain.simclr import SimCLR, simclr
from scanmix.pretrain.stages import Pretrained, candidate_neighbors, load_into, pretrain, under

SMALL = PreActResNetSettings(widths=(8, 16), blocks=(1, 1))
FIRST = SimCLR(epochs=4, batch_size=64, projection_size=8)
SECOND = Clustering(epochs=3, batch_size=64)


def run(data: TrainingData, engine: Engine, **changes: Any) -> Pretrained:
    pretraining, clustering = changes.pop("simclr", FIRST), changes.pop("scan", SECOND)
    k, include_self = changes.pop("k", 5), changes.pop("include_self", True)
    network = changes.pop("network", SMALL)
    return pretrain(pretraining, clustering, k, include_self, data, network, engine)


def equal(first: Pretrained, second: Pretrained) -> bool:
    pairs = [(first.encoder, second.encoder), (first.clusterer, second.clusterer)]
    same = all(one.keys() == two.keys() for one, two in pairs)
    same = same and all(torch.equal(one[name], two[name]) for one, two in pairs for name in one)
    return same and torch.equal(first.neighbors, second.neighbors)


@pytest.fixture
def stages_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that were computed, not recalled."""
    ran: list[str] = []

    def counted(name: str, stage: Callable[..., Tensors]) -> Callable[..., Tensors]:
        def wrapper(*arguments: Any) -> Tensors:
            ran.append(name)
            return stage(*arguments)

        return wrapper

    monkeypatch.setattr(module, "simclr", counted("simclr", simclr))
    monkeypatch.setattr(module, "cluster", counted("scan", cluster))
    return ran


def test_stages_give_neighbors_of_the_embedding_and_the_clustered_network(textures: TrainingData) -> None:
    engine = Engine()
    found = run(textures, engine)
    encoder = make_encoder(SMALL, 1, engine, "encoder")
    first = simclr(FIRST, encoder, textures, engine, None)
    assert torch.equal(found.neighbors, nearest_neighbors(first["embedding"], 5))
    only_first = run(textures, engine, scan=Clustering(epochs=0))
    assert only_first.clusterer == {} and torch.equal(only_first.neighbors, found.neighbors)
    assert all(torch.equal(only_first.encoder[name], value) for name, value in under("encoder.", first).items())
    # The clustering stage starts from SimCLR's encoder and moves it on by a little.
    peer = make_peer(SMALL, textures, engine, "clusterer")
    peer.encoder.load_state_dict(only_first.encoder)
    candidates = candidate_neighbors(found.neighbors, True)
    second = cluster(SECOND, peer, candidates, textures, engine, None)
    assert all(torch.equal(found.encoder[name], value) for name, value in under("encoder.", second).items())
    assert set(found.clusterer) == {"weight", "bias"}


def test_the_same_question_is_answered_from_the_cache(
    textures: TrainingData, tmp_path: Path, stages_run: list[str]
) -> None:
    first = run(textures, Engine(cache=tmp_path))
    assert stages_run == ["simclr", "scan"]
    second = run(textures, Engine(cache=tmp_path))
    assert stages_run == ["simclr", "scan"]
    assert equal(first, second) and equal(first, run(textures, Engine()))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2


def test_other_labels_ask_the_same_question(textures: TrainingData, tmp_path: Path, stages_run: list[str]) -> None:
    run(textures, Engine(cache=tmp_path))
    run(replace(textures, labels=textures.labels.flip(0)), Engine(cache=tmp_path))
    assert stages_run == ["simclr", "scan"]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"simclr": replace(FIRST, epochs=3)}, ["simclr", "scan"]),
        ({"simclr": replace(FIRST, symmetric=True)}, ["simclr", "scan"]),
        ({"simclr": replace(FIRST, contrast_temperature=0.5)}, ["simclr", "scan"]),
        ({"network": replace(SMALL, final_norm=True)}, ["simclr", "scan"]),
        ({"scan": replace(SECOND, epochs=2)}, ["scan"]),
        ({"scan": replace(SECOND, entropy_weight=2.0)}, ["scan"]),
        ({"k": 4}, ["scan"]),
        ({"include_self": False}, ["scan"]),
    ],
)
def test_another_setting_is_another_question(
    textures: TrainingData, tmp_path: Path, stages_run: list[str], changes: dict[str, Any], again: list[str]
) -> None:
    run(textures, Engine(cache=tmp_path))
    stages_run.clear()
    run(textures, Engine(cache=tmp_path), **changes)
    assert stages_run == again


def seen(data: TrainingData, settings: ViewSettings, *, flip: bool = True) -> TrainingData:
    return replace(data, views=make_views(settings, data.images[:], flip=flip))


def darker(data: TrainingData) -> TrainingData:
    images = data.images[:].clone()
    images[3, 0, 2, 2] ^= 1
    return replace(data, images=images)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda data: data, []),
        (lambda data: seen(data, ViewSettings(contrast_scale=(0.5, 1.0))), ["simclr", "scan"]),
        (lambda data: seen(data, ViewSettings(contrast_scale=(0.4, 1.0)), flip=False), ["simclr", "scan"]),
        (lambda data: seen(data, ViewSettings(contrast_scale=(0.4, 1.0), std=(0.3,), mean=(0.5,))),
         ["simclr", "scan"]),
        (lambda data: seen(data, ViewSettings(contrast_scale=(0.4, 1.0), strong_operations=1)), ["scan"]),
        (darker, ["simclr", "scan"]),
        (lambda data: replace(data, num_classes=5), ["scan"]),
    ],
)  # fmt: skip
def test_other_images_or_views_are_another_question(
    textures: TrainingData,
    tmp_path: Path,
    stages_run: list[str],
    change: Callable[[TrainingData], TrainingData],
    again: list[str],
) -> None:
    run(textures, Engine(cache=tmp_path))
    stages_run.clear()
    run(change(textures), Engine(cache=tmp_path))
    assert stages_run == again


def test_another_seed_is_another_question(textures: TrainingData, tmp_path: Path, stages_run: list[str]) -> None:
    run(textures, Engine(cache=tmp_path))
    other = Engine(seed=1, cache=tmp_path)
    run(replace(textures, generator=other.generator), other)
    assert stages_run == ["simclr", "scan"] * 2


@pytest.mark.parametrize("cut", [("SimCLR", 1), ("SimCLR", 2), ("SimCLR", 4), ("SCAN", 1), ("SCAN", 3)])
def test_a_stage_that_was_cut_goes_on_bit_for_bit(
    textures: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]
) -> None:
    monkeypatch.setattr(artifacts, "MOST_LOST", 0.0)
    whole = run(textures, Engine())
    news: list[tuple[str, int, int]] = []

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if cut[0] in stage and done == cut[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(textures, Engine(cache=tmp_path, tick=stop))
    engine = Engine(cache=tmp_path, tick=lambda stage, done, total, note: news.append((stage, done, total)))
    assert equal(run(textures, engine), whole)
    ran = [done for stage, done, _ in news if cut[0] in stage]
    total = 4 if cut[0] == "SimCLR" else 3
    assert ran == list(range(cut[1] - 1, total + 1)), "from the last epoch that is kept, which is told first"
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"] * 2


def test_progress_is_told_by_stage(textures: TrainingData) -> None:
    news: list[tuple[str, int, int]] = []
    run(textures, Engine(tick=lambda stage, done, total, note: news.append((stage, done, total))))
    first, second = news[0][0], news[-1][0]
    assert news == [(first, i, 4) for i in range(5)] + [(second, i, 3) for i in range(4)], "each before it begins"


def test_candidates_begin_with_the_example_itself_when_asked() -> None:
    neighbors = torch.tensor([[1, 2], [2, 0], [0, 1]])
    assert candidate_neighbors(neighbors, True).tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert candidate_neighbors(neighbors, False).tolist() == neighbors.tolist()


def test_under_cuts_only_the_prefix() -> None:
    tensors = {"encoder.encoder.x": torch.zeros(1), "clusterer.x": torch.ones(1), "embedding": torch.ones(2)}
    assert list(under("encoder.", tensors)) == ["encoder.x"]
    assert list(under("clusterer.", tensors)) == ["x"]


def test_both_heads_start_as_the_clustering_head(textures: TrainingData) -> None:
    found = run(textures, Engine())
    peer = make_peer(SMALL, textures, Engine(), "a")
    load_into([peer], found)
    assert all(torch.equal(value, found.encoder[name]) for name, value in peer.encoder.state_dict().items())
    for head in (peer.classifier, peer.clusterer):
        assert torch.equal(head.weight, found.clusterer["weight"])
        assert torch.equal(head.bias, found.clusterer["bias"])
    assert peer.classifier.weight is not peer.clusterer.weight


def test_heads_without_clustering_keep_their_own_start(textures: TrainingData) -> None:
    found = run(textures, Engine(), scan=Clustering(epochs=0))

    def fresh() -> Peer:
        return make_peer(SMALL, textures, Engine(), "a")

    peer = fresh()
    load_into([peer], found)
    assert torch.equal(peer.classifier.weight, fresh().classifier.weight)
    assert torch.equal(peer.clusterer.weight, fresh().clusterer.weight)
    assert not torch.equal(peer.classifier.weight, peer.clusterer.weight)


def test_a_stage_of_no_epochs_is_left_out(textures: TrainingData, tmp_path: Path, stages_run: list[str]) -> None:
    no_simclr, no_scan = replace(FIRST, epochs=0), Clustering(epochs=0)
    found = run(textures, Engine(cache=tmp_path), simclr=no_simclr, scan=no_scan)
    assert stages_run == [] and list(tmp_path.iterdir()) == []
    assert found.encoder == found.clusterer == {}
    assert torch.equal(found.neighbors, nearest_neighbors(textures.eval_view(slice(None)).flatten(1), 5))
    peer = make_peer(SMALL, textures, Engine(), "a")
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    load_into([peer], found)
    assert all(torch.equal(before[name], value) for name, value in peer.state_dict().items())
    clustered = run(textures, Engine(), simclr=no_simclr)
    assert stages_run == ["scan"] and torch.equal(clustered.neighbors, found.neighbors)
    assert set(clustered.clusterer) == {"weight", "bias"} and clustered.encoder


def test_few_examples_have_few_neighbors(textures: TrainingData) -> None:
    few = replace(textures, images=textures.images[:4], labels=textures.labels[:4])
    assert run(few, Engine(), k=20).neighbors.shape == (4, 3)
