"""What the rivals that learn how to learn, or from trusted labels, claim of themselves."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from scanmix.blocks.meta import synthetic_labels
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.mlnt import MLNT
from scanmix.networks.inference import classify, predict_all
from tests.methods.tiny import KIND, Network, near, run, weights

PLAIN: dict[str, Any] = {"batch_size": 32, "learning_rate": 0.05}


def test_the_meta_gradient_of_mlnt_is_that_of_the_teacher_after_each_synthetic_step(
    data: TrainingData, network: Network
) -> None:
    """Slow: a copy of the network takes the step, and its own gradients by KL(teacher || copy) are averaged."""
    method = MLNT(meta_rate=0.5)
    peer = method.start(data, network, Engine()).peers[0]
    views, labels = data.eval_view(slice(0, 24)), data.labels[:24]
    draws = torch.Generator().manual_seed(0)
    targets, features = torch.rand(24, 4, generator=draws).softmax(1), torch.randn(24, 5, generator=draws)
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    made = [synthetic_labels(features, labels, 4, 0.5, draws) for _ in range(3)]
    found, apart = method.meta_gradient(peer, views, targets, made)
    assert all(torch.equal(value, peer.state_dict()[name]) for name, value in before.items())
    divergence = 0.0
    wanted = {name: torch.zeros_like(part) for name, part in found.items()}
    for wrong in made:
        stepped = copy.deepcopy(classify(peer))
        F.cross_entropy(stepped(views), wrong).backward()
        with torch.no_grad():
            for weight in stepped.parameters():
                assert weight.grad is not None
                weight.sub_(weight.grad, alpha=0.5)
        stepped.zero_grad()
        loss = F.kl_div(stepped(views).log_softmax(1), targets, reduction="batchmean")
        loss.backward()
        divergence += loss.item() / 3
        for name, weight in stepped.named_parameters():
            assert weight.grad is not None
            wanted[name] += weight.grad / 3
    assert float(apart) == pytest.approx(divergence, rel=1e-4)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in found)


def test_before_its_rounds_mlnt_is_cross_entropy_and_each_round_begins_anew(
    data: TrainingData, network: Network
) -> None:
    method = MLNT(epochs=4, burn_in=2, rounds=2, synthetic=1, **PLAIN)
    assert [method.place(64, epoch) for epoch in range(4)] == [(-1, 0, 2), (-1, 1, 2), (0, 0, 1), (1, 0, 1)]
    state = method.start(data, network, Engine())
    method.epoch(state, data, 0)
    assert "meta/apart" not in method.epoch(state, data, 1)
    teacher = weights(state.averages[0])
    other = replace(method, consistency_weight=0.0)
    again = run(other, data, network, 3)
    assert "meta/apart" in method.epoch(state, data, 2)
    assert near(weights(state.mentors[0]), teacher), "the mentor is the last teacher"
    assert not near(weights(state.peers[0]), weights(again.peers[0])), "the meta loss teaches"
    fresh = MLNT(epochs=1, burn_in=0, rounds=1, synthetic=1, consistency_weight=0.0, **PLAIN)
    state = fresh.start(data, network, Engine())
    assert near(weights(state.first[0]), weights(again.first[0])) and state.p_clean is None and again.p_clean is None


def test_a_round_of_mlnt_leaves_out_what_its_mentor_finds_unlikely(data: TrainingData, network: Network) -> None:
    method = MLNT(epochs=3, burn_in=1, rounds=2, synthetic=1, unlikely=0.24, **PLAIN)
    state = run(method, data, network, 2)
    teacher = predict_all(classify(state.averages[0]), data).softmax(1)
    found = method.epoch(state, data, 2)
    wanted = torch.tensor([float(row[label] >= 0.24) for row, label in zip(teacher, data.labels, strict=True)])
    assert torch.equal(state.p_clean[0], wanted) and 0 < float(wanted.mean()) < 1
    assert found["kept"] == pytest.approx(float(wanted.mean()))


def test_mlnt_learns_classes_and_leaves_out_wrong_labels(data: TrainingData, network: Network) -> None:
    method = MLNT(epochs=24, burn_in=8, rounds=2, synthetic=2, unlikely=0.1, batch_size=16, learning_rate=0.1)
    state = run(method, data, network)
    right = data.labels == KIND
    kept = state.p_clean[0] > 0.5
    assert float(right[kept].float().mean()) > float(right.float().mean())
    found = predict_all(method.predictor(state), data).argmax(1)
    assert float((found == KIND)[~right].float().mean()) > 0.6
