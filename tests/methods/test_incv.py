"""INCV: its rounds, what it selects and discards, and what its Co-teaching is given."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from scanmix.blocks.selection import small_loss
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.incv import INCV
from scanmix.methods.steps.cross_validation import halved, learn_and_look
from tests.methods.tiny import KIND, Network, near, run, weights


def test_halves_are_all_candidates_once() -> None:
    candidate = torch.arange(21) % 3 != 0
    first, second = halved(candidate, torch.Generator().manual_seed(0))
    assert sorted([*first.tolist(), *second.tolist()]) == candidate.nonzero().squeeze(1).tolist()
    assert len(first) == len(second) == 7
    again, _ = halved(candidate, torch.Generator().manual_seed(1))
    assert set(again.tolist()) != set(first.tolist())


def after_a_round(predicted: Tensor, losses: Tensor, data: TrainingData, network: Network, **more: Any) -> Any:
    method = INCV(**more)
    state = method.start(data, network, Engine())
    state.predicted, state.losses = predicted, losses
    method.select(state, data, (torch.arange(32), torch.arange(32, 64)), estimated=True)
    return state


def test_what_is_predicted_is_selected_and_the_largest_losses_are_discarded(
    data: TrainingData, network: Network
) -> None:
    """48 of 64 agree: e by hand is 0.137 of 4 classes, so of 20 and 28 that agree floor(0.1589 n) are discarded."""
    agree = torch.ones(64, dtype=torch.bool)
    agree[:12], agree[60:] = False, False
    predicted = torch.where(agree, data.labels, (data.labels + 1 + torch.arange(64) % 3) % 4)
    losses = torch.arange(64.0)
    state = after_a_round(predicted, losses, data, network)
    root = (1 - (1 - 0.75) / 0.75) ** 0.5
    wrong = 0.75 * (1 - root)
    assert state.wrong == pytest.approx(wrong) and not state.paired
    assert torch.equal(state.selected, agree)
    ratio = wrong / (1 - wrong)
    gone = {*range(32 - int(20 * ratio), 32), *range(64 - int(28 * ratio), 64)}
    left = {i for i in range(64) if not agree[i]} - gone
    assert set(state.candidate.nonzero().squeeze(1).tolist()) == left and len(left) < 16
    assert torch.equal(state.p_clean, agree.float().expand(2, -1))


def test_where_mistakes_are_paired_none_is_discarded(data: TrainingData, network: Network) -> None:
    agree = torch.arange(64) >= 16
    predicted = torch.where(agree, data.labels, (data.labels + 1) % 4)
    losses = torch.arange(64.0).flip(0)  # the largest are those that differ
    state = after_a_round(predicted, losses, data, network)
    assert state.paired and torch.equal(state.candidate, ~agree)
    assert state.wrong == pytest.approx((1 - 0.5**0.5) / 2)
    told = after_a_round(predicted, losses, data, network, mistakes="even")
    assert not told.paired and int(told.candidate.sum()) < 16


def test_every_training_of_a_round_begins_with_the_same_weights(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = INCV(epochs=16, rounds=4, batch_size=16)
    begun: list[list[Tensor]] = []
    learned: list[set[int]] = []

    def watched(peer: Any, data: TrainingData, learn: Tensor, held: Tensor, *more: Any) -> Any:
        begun.append(weights(peer))
        learned.append({*learn.tolist()})
        assert not {*learn.tolist()} & {*held.tolist()}, "what is held out is not learned"
        return learn_and_look(peer, data, learn, held, *more)

    monkeypatch.setattr("scanmix.methods.incv.learn_and_look", watched)
    state = run(method, data, network, 8)
    assert len(begun) == 16, "4 rounds of 2 epochs of 2 networks"
    assert all(near(begun[4 * turn + side], begun[0]) for turn in range(4) for side in (0, 1))
    assert not near(begun[2], begun[0]) and learned[0] | learned[1] == {*range(64)}
    first = {i for i in range(64) if i in learned[4] and i in learned[5]}
    assert first, "what the first round selected is learned by both networks"
    method.epoch(state, data, 8)
    assert not near(weights(state.peers[0]), weights(state.peers[1])), "Co-teaching begins with two networks"


def test_its_selection_is_cleaner_and_a_third_counts_as_wrong(data: TrainingData, network: Network) -> None:
    method = INCV(epochs=80, rounds=2, batch_size=16, learning_rate=0.05)
    state = run(method, data, network, 40)
    right = data.labels == KIND
    assert float(right[state.selected].float().mean()) > float(right.float().mean()) + 0.15
    assert float(state.selected.float().mean()) > 0.4 and not state.paired
    assert 0.15 < state.wrong < 0.6


def test_candidates_join_co_teaching_late(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def watched(losses: Tensor, share: float, trusted: Any) -> Tensor:
        chosen = small_loss(losses, share, trusted)
        seen.append((len(losses), len(chosen)))
        return chosen

    monkeypatch.setattr("scanmix.methods.incv.small_loss", watched)
    method = INCV(epochs=8, selection=2, rounds=1, batch_size=64, gradual=2, candidates_after=1)
    state = method.start(data, network, Engine())
    state.selected = torch.arange(64) < 40
    state.candidate, state.wrong = torch.arange(64) >= 48, 0.5
    left_out = 0.25 / (0.25 + 3 * 0.25)
    for epoch, rows, parts in ((2, 40, 0.0), (3, 56, 0.5), (4, 56, 1.0), (5, 56, 1.0)):
        seen.clear()
        method.epoch(state, data, epoch)
        assert seen == [(rows, round(40 * (1 - parts * left_out)))] * 2, epoch


def test_labels_that_are_known_are_selected_from_the_start(data: TrainingData, network: Network) -> None:
    trusted = torch.arange(64) < 5
    state = INCV().start(dataclasses.replace(data, trusted=trusted), network, Engine())
    assert torch.equal(state.selected, trusted) and torch.equal(state.candidate, ~state.selected)
