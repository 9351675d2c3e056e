"""DRPL: three stages of one network, and the labels that each of them learns."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.methods.drpl import DRPL, pseudo_labels
from scanmix.methods.joint import Joint
from scanmix.networks.inference import classify, predict_all
from tests.methods.tiny import KIND, Network, near, run, weights


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pseudo_labels_by_hand(share: float) -> None:
    draws = torch.Generator().manual_seed(0)
    given, predicted = torch.eye(4)[torch.arange(30) % 4], torch.rand(30, 4, generator=draws).softmax(1)
    right = torch.arange(30) % 3 == 0
    found = pseudo_labels(given, predicted, right, share, draws)
    uniform = []
    for i in range(30):
        if right[i]:
            assert torch.equal(found[i], given[i])
        elif torch.equal(found[i], torch.full((4,), 0.25)):
            uniform.append(i)
        else:
            assert torch.equal(found[i], predicted[i])
    assert len(uniform) == int(share * 20)
    again = pseudo_labels(given, predicted, right, share, draws)
    assert torch.equal(again, found) == (share != 0.3), "others each time"


def test_the_first_stage_is_joint_optimization(data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {
        "batch_size": 16, "learning_rate": 0.05, "prior_weight": 0.8, "entropy_weight": 0.4, "begin": 2,
    }  # fmt: skip
    method = DRPL(epochs=8, relabeling=5, detection=8, epochs_averaged=3, relabeling_drops=(1.0, 1.0), **plain)
    ours = run(method, data, network, 5)
    joint = run(Joint(epochs=8, joint=8, remembered=3, **plain), data, network, 5)
    assert near(weights(ours.peers[0]), weights(joint.peers[0])) and torch.equal(ours.targets, joint.targets)
    assert torch.allclose(ours.targets, ours.remembered.mean(0)) and ours.p_clean.shape == (1, 64)


def test_the_mixture_finds_wrong_labels_after_relabeling(data: TrainingData, network: Network) -> None:
    method = DRPL(epochs=40, relabeling=25, detection=32, begin=12, batch_size=16, learning_rate=0.05)
    state = run(method, data, network, 25)
    believed, right = state.p_clean[0] > 0.5, data.labels == KIND
    assert float((believed == right).float().mean()) > 0.85
    assert float((state.targets.argmax(1) == KIND).float().mean()) > float(right.float().mean()) + 0.15


def test_later_stages_begin_anew_and_learn_right_labels_first(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DRPL(
        epochs=9, relabeling=1, detection=5, begin=0, epochs_averaged=1, labeled_warmup=2, batch_size=16,
        detection_threshold=0.3, random_share=0.0,
    )  # fmt: skip
    state = method.start(data, network, Engine())
    fresh = weights(state.peers[0])
    seen: list[list[int]] = []
    begun: list[list[Tensor]] = []

    def watched(among: Tensor, *more: Any) -> Any:
        seen.append(sorted(among.tolist()))
        begun.append(weights(state.peers[0]))
        return batches(among, *more)

    monkeypatch.setattr("scanmix.methods.drpl.batches", watched)
    doubts = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    for epoch in range(9):
        method.epoch(state, data, epoch)
        if epoch in (0, 4):
            state.p_clean = doubts[epoch // 4].unsqueeze(0)  # in place of the mixture
            continue
        threshold, p_clean = (0.3, doubts[0]) if epoch < 5 else (0.5, doubts[1])
        right = p_clean >= 1 - threshold
        warming = epoch in (1, 2, 5, 6)
        assert seen[-1] == (right.nonzero().squeeze(1).tolist() if warming else [*range(64)])
        wanted = torch.where(right.unsqueeze(1), data.one_hot(data.everything), state.remembered[0])
        assert torch.equal(state.targets, data.one_hot(data.everything) if warming else wanted)
    assert [near(each, fresh) for each in begun] == [epoch in (0, 1, 5) for epoch in range(9)]
    assert state.remembered.shape == (1, 64, 4)


def test_after_its_warm_up_a_stage_takes_what_the_network_predicts(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DRPL(epochs=9, relabeling=0, detection=9, labeled_warmup=1, batch_size=16, random_share=0.0)
    state = run(method, data, network, 1)
    state.p_clean = (torch.arange(64) < 16).float().unsqueeze(0)
    predicted = predict_all(classify(state.peers[0]), data).softmax(1)
    monkeypatch.setattr(DRPL, "_train_pass", lambda *_: None)
    method.epoch(state, data, 1)
    given = data.one_hot(data.everything)
    assert torch.equal(state.targets[:16], given[:16]) and torch.allclose(state.targets[16:], predicted[16:], atol=1e-6)


def test_rates_fall_within_each_stage(data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DRPL, "_train_pass", lambda *_: None)
    state, method = DRPL().start(data, network, Engine()), DRPL()
    rates = [method.epoch(state, data, epoch)["rate/learn"] for epoch in range(625)]
    changes = [epoch for epoch in range(1, 625) if rates[epoch] != rates[epoch - 1]]
    assert changes == [75, 110, 130, 140 + 100, 140 + 150, 315, 325 + 150, 325 + 225]
    assert sorted({round(rate, 6) for rate in rates}) == [0.001, 0.01, 0.1]


def test_labels_that_are_known_keep_their_targets(data: TrainingData, network: Network) -> None:
    known = dataclasses.replace(data, trusted=torch.arange(64) % 2 == 0)
    method = DRPL(epochs=6, relabeling=2, detection=4, begin=0, epochs_averaged=1, labeled_warmup=0, batch_size=16)
    state = method.start(known, network, Engine())
    for epoch in range(6):
        method.epoch(state, known, epoch)
        assert torch.equal(state.targets[::2], data.one_hot(data.everything)[::2]), epoch
