"""Labels that are known to be right: every method learns them, weighs them fully and never puts another in their place.

The trusted labels here are of another class than the image, so a network that has learned the rest disagrees with them:
what treats them like the others fails.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.config import build
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import METHODS
from scanmix.methods.decoupling import Decoupling
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.mentornet import MentorNet
from scanmix.methods.mentornet_dd import MentorNetDD
from scanmix.methods.scanmix import ScanMix
from scanmix.networks.peer import Peer
from tests.methods.tiny import KIND, Network, run, weights
from tests.tiny import settings, tiny_method

COUNT = 12
"""Of the 21 wrong labels."""

BY_GRADIENT: dict[str, dict[str, Any]] = {
    "bootstrap": {"trust": 0.0},
    "d2l": {},
    "forward": {},
    "backward": {},
    "decoupling": {"warmup": 0},
    "co_teaching": {"forget_rate": 0.9, "gradual": 0},
    "co_teaching_plus": {"forget_rate": 0.9, "gradual": 0, "alike": 1},
    "mentornet": {"early_dropout": 1.0, "dropout": 1.0},
}
"""Methods whose loss is of one image a row, with settings that make most of their doubts."""
BY_DIVISION = (
    "co_teaching", "co_teaching_plus", "jocor", "m_correction", "m_correction_sh", "pes", "pes_semi", "ssr", "ssr_plus",
    "dividemix", "c2d", "scan_dividemix", "scanmix", "propagate", "mlnt", "famus", "incv", "drpl", "moit_plus",
    "disc", "augdesc", "accord",
)  # fmt: skip
"""Methods that keep p_clean."""
AS_CROSS_ENTROPY: dict[str, dict[str, Any]] = {
    "gce": {"power": 1.0},
    "sce": {},
    "cores": {"plain": 0, "rising": 0, "begin": 0},
}
"""Methods whose loss of a known label is cross-entropy, with settings that make most of their own."""
BY_TARGET = ("elr", "elr_plus", "joint", "pencil")
"""Methods that keep a target of each example."""
AS_GIVEN = ("cross_entropy", "mixup", "exact_em", "scan", "linear")
"""Methods that take all labels as they are, or none."""
APART = (
    "cleannet", "deep_self", "fsr", "metacleaner", "mentornet_dd", "mentormix", "ncr", "neighbors", "sop", "sop_plus",
    "wann",
)  # fmt: skip
"""Methods with a test of their own alone."""


@pytest.fixture
def known(data: TrainingData) -> TrainingData:
    """The same data; labels that are known, so it says, are all of another class than their image."""
    trusted = torch.zeros(64, dtype=torch.bool)
    trusted[(data.labels != KIND).nonzero().squeeze(1)[:COUNT]] = True
    return dataclasses.replace(data, trusted=trusted)


def in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a method take all examples as one batch, in their order: row i of what it computes is example i."""
    for cls in METHODS[name].__mro__[:-1]:
        module = importlib.import_module(cls.__module__)
        if hasattr(module, "batches"):
            monkeypatch.setattr(module, "batches", lambda index, *_, **__: [index])


def test_every_method_is_looked_at() -> None:
    assert {*BY_GRADIENT, *AS_CROSS_ENTROPY, *BY_DIVISION, *BY_TARGET, *AS_GIVEN, *APART} == {*METHODS}


def make_doubtful(name: str, state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a method that first has to find reasons for doubt have them now."""
    if name == "d2l":
        state.turned, state.lids = True, torch.tensor([1e-3])
    shifted = 0.05 * torch.eye(4) + 0.95 * torch.eye(4).roll(1, 0)
    if name in ("forward", "backward"):
        monkeypatch.setattr("scanmix.methods.loss_correction.estimate_transition", lambda *_, **__: shifted.double())


def seen_logits(name: str, data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Logits with their gradients, each (64, 4), of every network in the second epoch."""
    in_order(name, monkeypatch)
    method = build(METHODS[name], settings(name, 4, **(BY_GRADIENT | AS_CROSS_ENTROPY)[name]), where=name)
    state = method.start(data, network, Engine())
    method.epoch(state, data, 0)
    make_doubtful(name, state, monkeypatch)
    kept: list[Tensor] = []
    honest = Peer.logits

    def watched(self: Peer, images: Tensor) -> Tensor:
        logits = honest(self, images)
        if logits.requires_grad:
            logits.retain_grad()
            kept.append(logits)
        return logits

    monkeypatch.setattr(Peer, "logits", watched)
    method.epoch(state, data, 1)
    assert kept and all(logits.shape == (64, 4) for logits in kept)
    return kept


def pulls(name: str, data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Negative gradients of the loss by the logits, as `seen_logits`.

    The weight of a label is how strongly its class is pulled up, for what it lacks in probability.
    """
    found = seen_logits(name, data, network, monkeypatch)
    return [-logits.grad for logits in found if logits.grad is not None]


def is_learned(pull: Tensor, data: TrainingData, rows: Tensor) -> Tensor:
    """Whether the given class, and no other, is pulled up in each of these rows."""
    ups = pull[rows] > 0
    return (ups == F.one_hot(data.labels[rows], 4).bool()).all(1)


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_the_loss_pulls_to_a_label_that_is_known(
    name: str, known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert known.trusted is not None
    rows = known.trusted.nonzero().squeeze(1)
    found = pulls(name, known, network, monkeypatch)
    assert found and all(bool(is_learned(pull, known, rows).all()) for pull in found)
    monkeypatch.undo()
    doubted = pulls(name, dataclasses.replace(known, trusted=None), network, monkeypatch)
    assert not all(bool(is_learned(pull, known, rows).all()) for pull in doubted), "or the test shows nothing"


@pytest.mark.parametrize("name", AS_CROSS_ENTROPY)
def test_the_loss_of_a_label_that_is_known_is_cross_entropy(
    name: str, known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradient is (p - onehot) / n, with the same n for all: what the mean is of."""
    rows = known.trusted.nonzero().squeeze(1)  # type: ignore[union-attr]

    def times(data: TrainingData) -> Tensor:
        (logits,) = seen_logits(name, data, network, monkeypatch)
        monkeypatch.undo()
        plain = logits.detach().softmax(1) - F.one_hot(data.labels, 4)
        assert logits.grad is not None
        return (logits.grad / plain)[rows]

    found = times(known)
    assert 0.0 < float(found.min()) and torch.allclose(found, found.mean(), rtol=1e-3)
    doubted = times(dataclasses.replace(known, trusted=None))
    assert not torch.allclose(doubted, doubted.mean(), rtol=1e-1), "or the test shows nothing"


@pytest.mark.parametrize("name", BY_DIVISION)
def test_a_label_that_is_known_is_in_the_clean_set(name: str, known: TrainingData, network: Network) -> None:
    method = tiny_method(name, 3)
    doubted = run(method, dataclasses.replace(known, trusted=None), network).p_clean[:, known.trusted]
    assert float(doubted.min()) < 1, "or the test shows nothing"
    state = run(method, known, network)
    assert bool((state.p_clean[:, known.trusted] == 1).all())
    assert float(state.p_clean.min()) < 1, "others are still doubted"


@pytest.mark.parametrize("name", BY_TARGET)
def test_the_target_of_a_label_that_is_known_is_that_label(name: str, known: TrainingData, network: Network) -> None:
    def targets_of(data: TrainingData) -> Tensor:
        state = run(tiny_method(name, 3), data, network, 2)
        found = state.label_logits.softmax(1) if name == "pencil" else state.targets
        assert isinstance(found, Tensor)
        return found[..., known.trusted, :]

    given = F.one_hot(known.labels[known.trusted], 4).float()
    assert torch.allclose(targets_of(known), given.expand_as(targets_of(known)), atol=1e-3)  # PENCIL begins at 0.9999
    moved = targets_of(dataclasses.replace(known, trusted=None))
    assert not torch.allclose(moved, given.expand_as(moved), atol=1e-3), "or the test shows nothing"


@pytest.mark.parametrize("name", AS_GIVEN)
def test_methods_without_doubts_do_as_before(name: str, known: TrainingData, network: Network) -> None:
    states = [run(tiny_method(name, 2), data, network) for data in (known, dataclasses.replace(known, trusted=None))]
    first, second = (weights(state.peers[0]) for state in states)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["sop", "sop_plus"])
def test_a_label_that_is_known_has_nothing_wrong_in_sop(name: str, known: TrainingData, network: Network) -> None:
    assert known.trusted is not None
    method = tiny_method(name, 3)
    state, first = run(method, known, network), method.start(known, network, Engine())
    for now, before in ((state.u, first.u), (state.v, first.v)):
        assert torch.equal(now[known.trusted], before[known.trusted])
        assert not torch.equal(now[~known.trusted], before[~known.trusted])


def watch(monkeypatch: pytest.MonkeyPatch, where: str, name: str, see: Callable[..., None]) -> None:
    """Call `see` with the arguments and, last, the result of every call of a function."""
    honest = getattr(importlib.import_module(where), name)

    def watched(*arguments: Any, **more: Any) -> Any:
        found = honest(*arguments, **more)
        see(*arguments, found)
        return found

    monkeypatch.setattr(f"{where}.{name}", watched)


@pytest.mark.parametrize(
    ("name", "where", "function"),
    [
        ("dividemix", "scanmix.methods.dividemix", "divide"),
        ("scanmix", "scanmix.methods.scanmix", "divide"),
        ("pes", "scanmix.methods.pes", "batches"),
        ("pes_semi", "scanmix.methods.pes_semi", "forever"),
    ],
)
def test_what_is_learned_from_has_all_labels_that_are_known(
    name: str, where: str, function: str, known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, seen = known.trusted.nonzero().squeeze(1).tolist(), []  # type: ignore[union-attr]
    if function == "divide":
        watch(monkeypatch, where, function, lambda *found: seen.append(found[-1].nonzero().squeeze(1).tolist()))
    else:
        watch(monkeypatch, where, function, lambda *found: seen.append(found[0].tolist()))
    run(tiny_method(name, 3), known, network)
    sets = seen[::2] if name == "pes_semi" else seen  # every second is that of the others
    assert sets and all({*rows} <= {*one} for one in sets) and any(len(one) < 64 for one in sets)


def test_labels_of_m_correction_that_are_known_are_not_blended(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order("m_correction", monkeypatch)
    seen: list[Tensor] = []
    watch(monkeypatch, "scanmix.methods.m_correction", "bootstrap_targets", lambda *found: seen.append(found[-1]))
    run(tiny_method("m_correction", 3), known, network)
    given = known.one_hot(known.everything)
    assert seen and all(torch.equal(found[known.trusted], given[known.trusted]) for found in seen)
    assert any(not torch.equal(found, given) for found in seen)


def test_networks_that_agree_learn_known_labels_by_decoupling(known: TrainingData, network: Network) -> None:
    method = Decoupling(epochs=2, batch_size=32, warmup=0)
    for data, share in ((known, COUNT / 64), (dataclasses.replace(known, trusted=None), 0.0)):
        state = method.start(data, network, Engine())
        state.peers[1].load_state_dict(state.peers[0].state_dict())
        assert method.epoch(state, data, 0)["learn/differ"] == share


@pytest.mark.parametrize("kind", [MentorNet, MentorNetDD])
def test_weights_of_mentornet_are_one_where_labels_are_known(
    kind: type[MentorNet], known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no loss counts as small, and all are dropped."""
    monkeypatch.setattr("scanmix.methods.mentornet.weight_of_small_losses", lambda losses, *_: torch.zeros_like(losses))
    method = kind(epochs=2, batch_size=32, early_dropout=1.0, dropout=1.0)
    state = method.start(known, network, Engine())
    assert method.epoch(state, known, 0)["learn/weight"] == COUNT / 64


@pytest.mark.parametrize("second", [False, True])
def test_weights_of_mentormix_are_one_where_labels_are_known(
    second: bool, known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order("mentormix", monkeypatch)
    monkeypatch.setattr("scanmix.methods.mentormix.weight_of_small_losses", lambda losses, *_: torch.zeros_like(losses))
    seen: list[Tensor] = []
    watch(monkeypatch, "scanmix.methods.mentormix", "pinned", lambda *found: seen.append(found[-1]))
    method = MentorMix(epochs=2, batch_size=32, burn_in=0, second_weighting=second)
    state = method.start(known, network, Engine())
    found = method.epoch(state, known, 0)
    assert len(seen) == 1 + second and all(torch.equal(one, known.trusted.float()) for one in seen)  # type: ignore[union-attr]
    assert found["learn/weight"] == COUNT / 64 and found["learn/loss"] > 0


def test_synthetic_labels_of_mlnt_keep_known_labels(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order("mlnt", monkeypatch)
    seen: list[Tensor] = []
    watch(monkeypatch, "scanmix.methods.mlnt", "synthetic_labels", lambda *found: seen.append(found[-1]))
    run(tiny_method("mlnt", 3), known, network, 2)
    assert seen and all(torch.equal(found[known.trusted], known.labels[known.trusted]) for found in seen)
    assert any(not torch.equal(found, known.labels) for found in seen)


def test_labels_that_are_known_weigh_one_in_cleannet(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    watch(monkeypatch, "scanmix.methods.cleannet", "pinned", lambda *found: seen.append((found[0], found[-1])))
    state = run(tiny_method("cleannet", 3), known, network)
    assert len(seen) == 4 and all(bool((found[known.trusted] == 1).all()) for _, found in seen)
    assert any(bool((before[known.trusted] < 1).any()) for before, _ in seen), "or the test shows nothing"
    assert bool((state.p_clean[:, known.trusted] == 1).all()) and float(state.p_clean.min()) == 0


def test_members_whose_labels_are_known_weigh_one_in_metacleaner(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, ...]] = []
    watch(monkeypatch, "scanmix.methods.metacleaner", "pinned", lambda *found: seen.append(found))
    run(tiny_method("metacleaner", 2), known, network)
    assert sum(int(mask.sum()) for _, mask, _ in seen) >= 2 * COUNT
    assert all(bool((after[mask] == 1).all()) and bool((before < 1).all()) for before, mask, after in seen)


def test_fsr_learns_known_labels_with_full_weight_and_no_guess(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order("fsr", monkeypatch)
    seen: list[tuple[Tensor, Tensor]] = []
    targets: list[Tensor] = []
    watch(monkeypatch, "scanmix.methods.fsr", "pinned", lambda *found: seen.append((found[0], found[-1])))
    watch(monkeypatch, "scanmix.methods.fsr", "keep_given", lambda *found: targets.append(found[-1]))
    state = run(tiny_method("fsr", 3), known, network)
    assert all(torch.equal(found[known.trusted], torch.ones(COUNT)) for _, found in seen)
    assert any(not torch.equal(before[known.trusted], torch.ones(COUNT)) for before, _ in seen), "or it shows nothing"
    given = known.one_hot(known.everything)
    assert len(targets) == 3 and all(torch.equal(found[known.trusted], given[known.trusted]) for found in targets)
    assert not torch.equal(state.logits[known.trusted].softmax(1), given[known.trusted])


def test_rows_of_known_labels_weigh_one_in_famus(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    watch(monkeypatch, "scanmix.methods.famus", "pinned", lambda *found: seen.append(found[1:]))
    run(tiny_method("famus", 2), known, network)
    assert seen and any(bool(mask.any()) for mask, _ in seen)
    assert all(bool((weights[mask] == 1).all()) for mask, weights in seen)
    assert any(bool((weights[~mask] != 1).any()) for mask, weights in seen)


def test_warm_up_of_scanmix_learns_known_labels_whatever_neighbors_vote(
    known: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    watch(monkeypatch, "scanmix.methods.scanmix", "labeled_views", lambda *found: seen.append(found[2]))
    method = tiny_method("scanmix", 2)
    assert isinstance(method, ScanMix)
    run(dataclasses.replace(method, vote_rounds=2, propagate_classes=True), known, network, 1)
    assert seen and all(torch.equal(found[known.trusted], known.labels[known.trusted]) for found in seen)
    assert any(not torch.equal(found, known.labels) for found in seen)
