"""DivideMix and its control: the crossing of peers, the two warm-ups, and sides that are empty."""

from typing import Any

import pytest
import torch
from torch import Tensor

import scanmix.methods.dividemix as module
from scanmix.blocks.divide import clean_probability, normalize_losses
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import Method
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.steps.mixmatch import Mixed, mixmatch
from scanmix.networks.inference import PerSample
from scanmix.networks.peer import Peer
from scanmix.networks.preact_resnet import PreActResNetSettings

NUMBERS = torch.arange(64)


def losses(low: Tensor) -> Tensor:
    return torch.where(low, 0.2, 3.0) + NUMBERS / 1000


SPLIT = (losses(NUMBERS < 40), losses(NUMBERS % 8 < 3))
ALL_CLEAN = (torch.ones(64), torch.ones(64))
ONE_CLEAN = (losses(NUMBERS == 7), losses(NUMBERS == 9))


@pytest.mark.parametrize("found", [SPLIT, ALL_CLEAN, ONE_CLEAN])
def test_each_peer_learns_from_the_division_of_the_other(
    dividemix: DivideMix,
    data: TrainingData,
    network: PreActResNetSettings,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[Tensor, Tensor],
) -> None:
    state = dividemix.start(data, network, Engine())

    def per_sample_losses(peer: Peer, data: TrainingData) -> PerSample:
        return PerSample(found[state.peers.index(peer)], NUMBERS % 4)

    monkeypatch.setattr(module, "per_sample_losses", per_sample_losses)
    calls: list[tuple[int, Tensor, int]] = []
    mix = mixmatch

    def recorded(
        peer: Peer, other: Peer, labeled: list[Tensor], unlabeled: list[Tensor], labels: Tensor,
        p_clean: Tensor, *rest: Any, **named: Any,
    ) -> Mixed:  # fmt: skip
        side = state.peers.index(peer)
        assert other is state.peers[1 - side]
        calls.append((side, p_clean, len(unlabeled[0])))
        return mix(peer, other, labeled, unlabeled, labels, p_clean, *rest, **named)

    monkeypatch.setattr(module, "mixmatch", recorded)
    results = dividemix.epoch(state, data, 1)
    assert all(torch.tensor(value).isfinite() for value in results.values())
    assert [side for side, _, _ in calls] == sorted(side for side, _, _ in calls), "first a, then b"
    for side in (0, 1):
        p_other = clean_probability(normalize_losses(found[1 - side]))
        expected = p_other[p_other > 0.5].sort().values
        got = torch.cat([p_clean for who, p_clean, _ in calls if who == side]).sort().values
        assert torch.equal(got, expected)
        unlabeled = sum(count for who, _, count in calls if who == side)
        assert (unlabeled == 0) == (len(expected) == 64)


def snapshot(peer: Peer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in peer.state_dict().items()}


def moved(peer: Peer, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in peer.state_dict().items() if not torch.equal(value, before[name])}


def test_dividemix_warms_the_whole_network_up(
    dividemix: DivideMix, data: TrainingData, network: PreActResNetSettings
) -> None:
    state = dividemix.start(data, network, Engine())
    a, b = state.peers
    assert "encoder.stem.weight" in moved(a, snapshot(b)), "two networks, two starts"
    before = [snapshot(peer) for peer in state.peers]
    dividemix.epoch(state, data, 0)
    for peer, old in zip(state.peers, before, strict=True):
        assert moved(peer, old) == {name for name in old if not name.startswith("clusterer")}


def test_scan_dividemix_warms_the_heads_up_from_the_same_clusters(
    methods: Any, data: TrainingData, network: PreActResNetSettings
) -> None:
    method: Method = methods(3)["scan_dividemix"]
    state = method.start(data, network, Engine())
    a, b = state.peers
    assert not moved(a, snapshot(b))
    before = [snapshot(peer) for peer in state.peers]
    method.epoch(state, data, 0)
    for peer, old in zip(state.peers, before, strict=True):
        statistics = {name for name in old if "running" in name or "num_batches" in name}
        assert moved(peer, old) == statistics | {"classifier.weight", "classifier.bias"}
    middle = snapshot(a)
    method.epoch(state, data, 1)
    assert moved(a, middle) == {name for name in middle if not name.startswith("clusterer")}


def test_losses_are_averaged_over_epochs(
    dividemix: DivideMix, data: TrainingData, network: PreActResNetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = dividemix.start(data, network, Engine())
    rounds = [SPLIT[0], SPLIT[1], ONE_CLEAN[0]]
    for epoch, values in enumerate(rounds, start=1):
        found = PerSample(values, NUMBERS % 4)
        monkeypatch.setattr(module, "per_sample_losses", lambda peer, data, found=found: found)
        dividemix.epoch(state, data, epoch)
        last = torch.stack([normalize_losses(one) for one in rounds[max(0, epoch - 2) : epoch]])
        assert state.p_clean is not None
        assert torch.allclose(state.p_clean[0], clean_probability(last.mean(0)), atol=1e-5)
