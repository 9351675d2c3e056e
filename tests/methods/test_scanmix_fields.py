"""What ScanMix starts from, what its warm-up moves, and the fields that select a variant."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

import scanmix.methods.scanmix as module
from scanmix.blocks.clusters import match_clusters
from scanmix.blocks.divide import clean_probabilities
from scanmix.data.batches import TrainingData
from scanmix.data.views import Views
from scanmix.data.views.sampling import View
from scanmix.distributed.engine import Engine
from scanmix.methods.scanmix import ScanMix, ScanMixState
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.peer import Peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering

Started = tuple[ScanMixState, TrainingData]


@pytest.fixture
def started(scanmix: ScanMix, data: TrainingData, network: PreActResNetSettings) -> Started:
    return scanmix.start(data, network, Engine()), data


def snapshot(peer: Peer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in peer.state_dict().items()}


def moved(peer: Peer, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in peer.state_dict().items() if not torch.equal(value, before[name])}


def test_warm_up_trains_the_head_alone_and_moves_statistics(scanmix: ScanMix, started: Started) -> None:
    state, data = started
    before = [snapshot(peer) for peer in state.peers]
    scanmix.epoch(state, data, 0)
    for peer, old in zip(state.peers, before, strict=True):
        statistics = {name for name in old if "running" in name or "num_batches" in name}
        assert moved(peer, old) == statistics | {"classifier.weight", "classifier.bias"}


def test_warm_up_of_the_whole_network_is_a_field(scanmix: ScanMix, started: Started) -> None:
    state, data = started
    before = snapshot(state.peers[0])
    replace(scanmix, warmup_part="network").epoch(state, data, 0)
    assert moved(state.peers[0], before) == {name for name in before if not name.startswith("clusterer")}


@pytest.mark.parametrize(("severe_noise", "whole"), [(1.0, True), (0.0, False)])
def test_where_noise_is_mild_the_whole_network_warms_up_on_the_given_labels(
    scanmix: ScanMix, started: Started, severe_noise: float, whole: bool
) -> None:
    state, data = started
    method = replace(scanmix, mild_warmup=2, severe_noise=severe_noise, learning_rate=0.03)
    results = [method.epoch(state, data, epoch) for epoch in range(4)]
    rates = [line.get("rate/warmup") for line in results]
    assert rates == ([0.05, 0.03, 0.03, None] if whole else [0.05, None, None, None])
    assert state.severe is not whole
    assert all("seconds/warmup" in line for line, rate in zip(results, rates, strict=True) if rate)


def test_the_second_warm_up_moves_encoder_and_classifier(scanmix: ScanMix, started: Started) -> None:
    state, data = started
    method = replace(scanmix, mild_warmup=1, severe_noise=1.0)
    method.epoch(state, data, 0)
    before = snapshot(state.peers[0])
    method.epoch(state, data, 1)
    assert moved(state.peers[0], before) == {name for name in before if not name.startswith("clusterer")}
    assert state.p_clean is not None, "what each peer believes is known all the same"


@pytest.mark.parametrize("warmup_view", ["weak", "strong"])
def test_the_view_of_warm_up_is_a_field(
    scanmix: ScanMix, started: Started, monkeypatch: pytest.MonkeyPatch, warmup_view: Literal["weak", "strong"]
) -> None:
    state, data = started
    asked: list[str] = []
    drawn = Views.random_view

    def spy(views: Views, kind: Literal["weak", "strong"]) -> View:
        asked.append(kind)
        return drawn(views, kind)

    monkeypatch.setattr(Views, "random_view", spy)
    replace(scanmix, warmup_view=warmup_view).epoch(state, data, 0)
    assert set(asked) == {warmup_view}


@pytest.mark.parametrize("mixture", ["all", "class"])
def test_the_mixture_is_of_all_losses_or_of_each_given_label(
    scanmix: ScanMix, started: Started, monkeypatch: pytest.MonkeyPatch, mixture: Literal["all", "class"]
) -> None:
    state, data = started
    groups: list[Tensor | None] = []

    def fit(losses: Tensor, labels: Tensor | None, reg_covar: float) -> Tensor:
        groups.append(labels)
        return clean_probabilities(losses, labels, reg_covar)

    monkeypatch.setattr(module, "clean_probabilities", fit)
    replace(scanmix, mixture=mixture).epoch(state, data, 1)
    assert groups[0] is (data.labels if mixture == "class" else None)


@pytest.mark.parametrize("shared_head", [True, False])
def test_clustering_goes_through_its_own_head_unless_told(
    scanmix: ScanMix, started: Started, shared_head: bool
) -> None:
    state, data = started
    before = snapshot(state.peers[1])
    replace(scanmix, shared_head=shared_head).epoch(state, data, 1)
    assert ("clusterer.weight" in moved(state.peers[1], before)) is not shared_head


@pytest.mark.parametrize("severe_noise", [0.0, 1.0])
def test_a_rate_of_zero_leaves_the_clustering_loss_out(scanmix: ScanMix, started: Started, severe_noise: float) -> None:
    state, data = started
    method = replace(scanmix, severe_noise=severe_noise, cluster_rate=1e-3, severe_cluster_rate=1e-3)
    without = replace(method, cluster_rate=0.0, severe_cluster_rate=0.0)
    before = snapshot(state.peers[0])
    assert "cluster/total" not in without.epoch(state, data, 1)
    assert not {"clusterer.weight", "clusterer.bias"} & moved(state.peers[0], before)
    assert "cluster/total" in method.epoch(state, data, 2)


def test_both_peers_start_from_the_same_clusters_and_neighbors(
    scanmix: ScanMix, data: TrainingData, network: PreActResNetSettings
) -> None:
    state = scanmix.start(data, network, Engine())
    a, b = state.peers
    assert not moved(a, snapshot(b)) and a is not b
    assert torch.equal(a.classifier.weight, a.clusterer.weight)
    assert state.candidates.shape == (64, 6) and state.candidates[:, 0].tolist() == list(range(64))
    alone = replace(scanmix, include_self=False).start(data, network, Engine())
    assert alone.candidates.shape == (64, 5)
    assert not (alone.candidates == torch.arange(64).unsqueeze(1)).any()
    scanmix.epoch(state, data, 0)
    assert moved(a, snapshot(b)), "order and views are their own"


def test_named_clusters_agree_best_with_the_given_labels(
    scanmix: ScanMix, data: TrainingData, network: PreActResNetSettings
) -> None:
    """The classifier's rows are put in order; the clustering head keeps its own."""
    plain = scanmix.start(data, network, Engine()).peers
    named = replace(scanmix, name_clusters=True).start(data, network, Engine()).peers
    for before, after in zip(plain, named, strict=True):
        clusters = per_sample_losses(before, data).prediction
        names = match_clusters(clusters, data.labels, 4)
        assert torch.equal(after.classifier.weight[names], before.classifier.weight)
        assert torch.equal(after.classifier.bias[names], before.classifier.bias)
        assert torch.equal(per_sample_losses(after, data).prediction, names[clusters])
        assert torch.equal(after.clusterer.weight, before.clusterer.weight)


def test_propagated_classes_are_what_all_heads_start_from(
    scanmix: ScanMix, data: TrainingData, network: PreActResNetSettings
) -> None:
    """A third of the labels is wrong, and clusters that nothing trained name no class."""
    assert not scanmix.propagate_classes
    true = torch.arange(64) % 4
    plain = replace(scanmix, clustering=Clustering(epochs=0))
    state = replace(plain, propagate_classes=True).start(data, network, Engine())
    a, b = state.peers
    assert torch.equal(a.classifier.weight, a.clusterer.weight) and torch.equal(a.classifier.bias, a.clusterer.bias)
    assert not moved(a, snapshot(b)) and a is not b
    for peer, before in zip(state.peers, plain.start(data, network, Engine()).peers, strict=True):
        heads = {f"{head}.{part}" for head in ("classifier", "clusterer") for part in ("weight", "bias")}
        assert moved(peer, snapshot(before)) == heads, "features are what they were"
        assert (per_sample_losses(peer, data).prediction == true).float().mean() > 0.9
        assert (per_sample_losses(before, data).prediction == true).float().mean() < 0.6


def test_warm_up_learns_the_labels_that_neighbors_voted_for(
    scanmix: ScanMix, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, data = started

    def voted(candidates: Tensor, labels: Tensor, num_classes: int, rounds: int, trusted: Tensor | None) -> Tensor:
        assert candidates is state.candidates and labels is data.labels and trusted is data.trusted is None
        assert (num_classes, rounds) == (4, 3)
        return torch.full_like(labels, 2)

    monkeypatch.setattr(module, "voted_labels", voted)
    before = [peer.classifier.bias.detach().clone() for peer in state.peers]
    replace(scanmix, vote_rounds=3).epoch(state, data, 0)
    for peer, old in zip(state.peers, before, strict=True):
        assert ((peer.classifier.bias - old) > 0).tolist() == [False, False, True, False]


def test_the_second_peer_can_be_the_running_average_of_the_first(
    scanmix: ScanMix, data: TrainingData, network: PreActResNetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = replace(
        scanmix, second_peer="average", average_decay=0.75, clustering=replace(scanmix.clustering, epochs=0)
    )
    state = method.start(data, network, Engine())
    first, second = state.peers
    assert not moved(first, snapshot(second)), "they begin as one"
    step, expected, steps = Peer.step, snapshot(second), 0

    def recorded(peer: Peer, loss: Tensor, rate: float) -> None:
        nonlocal steps
        assert peer is first
        step(peer, loss, rate)
        steps += 1
        for name, value in peer.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * value if value.is_floating_point() else value.clone()

    monkeypatch.setattr(Peer, "step", recorded)
    for epoch in range(3):
        method.epoch(state, data, epoch)
    assert steps == 8 and state.p_clean is not None and not torch.equal(*state.p_clean)
    for name, value in second.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert all(parameter.grad is None for parameter in second.parameters())


def test_a_second_peer_that_learns_follows_nobody(scanmix: ScanMix, started: Started) -> None:
    state, data = started
    replace(scanmix, second_peer="average").epoch(state, data, 0)
    scanmix.epoch(state, data, 1)
    assert not state.peers[0].averages
