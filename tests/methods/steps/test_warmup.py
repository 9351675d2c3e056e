"""Warm-up against the gradient step written out by hand, and what each part moves."""

import pytest
import torch
from torch import Tensor, nn

from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.steps.warmup import warm_up
from scanmix.networks.peer import Peer

RATE = 0.3


def small_peer() -> Peer:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    return Peer(encoder, 3, 2, engine=Engine(), momentum=0.0, weight_decay=0.0)


def one_batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(6, 1, 2, 2, generator=draw), torch.tensor([0, 1, 1, 0, 1, 1])


@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_the_head_takes_the_step_that_is_written_out_here(penalty: float) -> None:
    peer, (views, labels) = small_peer(), one_batch()
    hidden = (views.flatten(1) @ peer.encoder[1].weight.T + peer.encoder[1].bias).detach()  # type: ignore[index]
    features = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    weight, bias = peer.classifier.weight.detach().clone(), peer.classifier.bias.detach().clone()
    probs = (features @ weight.T + bias).softmax(1)
    rows = torch.arange(6)
    # d CE / d logits = p - y; the penalty is sum p log p, whose gradient is p (log p + H).
    slope = probs.clone()
    slope[rows, labels] -= 1
    entropy = -(probs * probs.log()).sum(1, keepdim=True)
    slope = (slope + penalty * probs * (probs.log() + entropy)) / 6
    meter = Meter()
    warm_up(peer, "head", [(views, labels)], RATE, penalty, meter)
    assert torch.allclose(peer.classifier.weight, weight - RATE * slope.T @ features, atol=1e-6)
    assert torch.allclose(peer.classifier.bias, bias - RATE * slope.sum(0), atol=1e-6)
    wanted = -probs[rows, labels].log().mean() - penalty * entropy.mean()
    assert meter.results()["warmup/loss"] == pytest.approx(float(wanted), abs=1e-6)


@pytest.mark.parametrize(("part", "moves"), [("head", False), ("network", True)])
def test_only_the_part_that_is_named_learns_and_statistics_follow(part: str, moves: bool) -> None:
    peer, batch = small_peer(), one_batch()
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    warm_up(peer, part, [batch, batch], RATE, 0.0, Meter())  # type: ignore[arg-type]
    after = peer.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert ("encoder.1.weight" in changed) is moves
    assert {"classifier.weight", "classifier.bias", "encoder.2.running_mean"} <= changed
    assert int(after["encoder.2.num_batches_tracked"]) == 2
    assert not any(name.startswith("clusterer") for name in changed)


def test_without_a_batch_nothing_happens() -> None:
    peer, meter = small_peer(), Meter()
    before = peer.classifier.weight.clone()
    warm_up(peer, "network", [], RATE, 0.0, meter)
    assert torch.equal(peer.classifier.weight, before) and meter.results() == {}
