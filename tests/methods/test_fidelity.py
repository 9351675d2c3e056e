"""`fidelity = "released"`: what published code does otherwise, there and nowhere else."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from scanmix.blocks.transition import estimate_transition
from scanmix.config import dotted_keys
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import METHODS, Method
from scanmix.methods.co_teaching_plus import CoTeachingPlus
from scanmix.methods.d2l import D2L
from scanmix.methods.elr_plus import ELRPlus
from scanmix.methods.loss_correction import Forward
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.mentornet import MentorNet
from scanmix.methods.mentornet_dd import MentorNetDD
from scanmix.methods.ncr import NCR
from scanmix.methods.pencil import Pencil
from scanmix.methods.pes import PES
from scanmix.methods.pes_semi import PESSemi
from scanmix.methods.steps.early_stopping import last_layers
from tests.methods.tiny import Network, near, run, weights

SMALL: dict[str, Any] = {"batch_size": 16, "learning_rate": 0.05}
CHANGES: dict[str, tuple[Method, int]] = {
    "forward": (Forward(epochs=4, estimation=2, quantile=0.5, **SMALL), 2),
    "co_teaching_plus": (CoTeachingPlus(epochs=3, alike=1, gradual=1, batch_size=16, learning_rate=0.01), 1),
    "mentornet": (MentorNet(epochs=4, loss_decay=0.9, **SMALL), 0),
    "mentornet_dd": (MentorNetDD(epochs=4, loss_decay=0.9, **SMALL), 0),
    "mentormix": (MentorMix(epochs=4, burn_in=1, second_weighting=True, **SMALL), 0),
    "d2l": (D2L(epochs=4, begin=0, window=1, **SMALL), 2),
    "pencil": (Pencil(epochs=8, fixed=2, moving=4, **SMALL), 2),
    "elr_plus": (ELRPlus(epochs=2, **SMALL), 0),
    "ncr": (NCR(epochs=3, warmup=1, **SMALL), 1),
    "pes": (PES(epochs=4, warmup=2, refit_stage=1, refit_head=1, **SMALL), 2),
    "pes_semi": (PESSemi(epochs=4, warmup=2, refit=1, **SMALL), 2),
}
"""A tiny run, and the first of its epochs that published code does otherwise."""


def released(method: Any, **settings: Any) -> Any:
    return dataclasses.replace(method, fidelity="released", **settings)


def test_a_choice_is_offered_where_the_two_differ_and_the_page_on_rivals_says_so() -> None:
    offered = {name for name in METHODS if "fidelity" in dotted_keys(METHODS[name])}
    assert offered == {*CHANGES, "backward"}
    sections = re.split(r"^### ", Path("docs/rivals.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    headings = [section.partition("\n")[0] for section in sections if "`released`" in section]
    assert {name for heading in headings for name in re.findall(r"`(\w+)`", heading)} == offered


@pytest.mark.parametrize("name", CHANGES)
def test_the_two_differ_from_where_they_should_and_not_before(
    name: str, data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, first = CHANGES[name]
    monkeypatch.setattr(D2L, "_measure", lambda self, peer, data, epoch: [2.0, 1.0, 5.0, 5.0][epoch])
    states = [each.start(data, network, Engine()) for each in (method, released(method))]
    for epoch in range(method.epochs):
        for each, state in zip((method, released(method)), states, strict=True):
            each.epoch(state, data, epoch)
        same = near(weights(states[0].peers[0]), weights(states[1].peers[0]))
        assert same or epoch >= first, f"epoch {epoch}"
    assert not same


def test_outliers_of_one_class_are_no_evidence_of_later_ones_in_published_code() -> None:
    """The example that says most of class 0 is an outlier there; published code then has it say nothing of class 0
    in the row of class 1, whose best example it is."""
    outlier = torch.tensor([[0.45, 0.55]])
    rest = torch.cat([torch.linspace(0.1, 0.4, 50).unsqueeze(1), 1 - torch.linspace(0.1, 0.4, 50).unsqueeze(1)], 1)
    predicted = torch.cat([rest * torch.tensor([1.0, 0.5]), outlier])
    plain, spoiled = (estimate_transition(predicted, 0.99, spoil=spoil) for spoil in (False, True))
    assert torch.allclose(plain[0], spoiled[0])
    assert torch.equal(predicted[-1:], outlier), "what was predicted is left as it is"
    best = predicted[:, 1].masked_fill(predicted[:, 1] > torch.quantile(predicted[:, 1], 0.99), -1).argmax()
    wanted = predicted[best].double()
    assert torch.allclose(plain[1], wanted / wanted.sum())


def test_the_second_softmax_of_co_teaching_plus_bounds_the_loss() -> None:
    method, sure = CoTeachingPlus(alike=3), torch.tensor([[30.0, 0.0, 0.0, 0.0]])
    wrong = torch.tensor([1])
    assert float(method.losses([sure], wrong, 3)[0]) == pytest.approx(30, abs=1e-3)
    assert float(released(method).losses([sure], wrong, 3)[0]) == pytest.approx(math.log(math.e + 3), abs=1e-5)
    assert torch.equal(released(method).losses([sure], wrong, 2)[0], method.losses([sure], wrong, 2)[0])


def test_the_threshold_of_mentornet_begins_at_nothing(data: TrainingData, network: Network) -> None:
    """After one batch of 64 the published average stands halfway between 0 and the percentile of that batch."""
    method = MentorNet(epochs=1, batch_size=64)
    ours, theirs = (run(each, data, network).threshold for each in (method, released(method)))
    assert theirs == pytest.approx(ours / 2)


@pytest.mark.parametrize("second", [False, True])
def test_mentormix_loses_its_weight_decay_with_the_second_weighting(
    second: bool, data: TrainingData, network: Network
) -> None:
    for method, wanted in (
        (MentorMix(second_weighting=second, weight_decay=1e-3), 1e-3),
        (released(MentorMix(second_weighting=second, weight_decay=1e-3)), 0.0 if second else 1e-3),
    ):
        (group,) = method.start(data, network, Engine()).peers[0].optimizer.param_groups
        assert group["weight_decay"] == wanted


def test_pencil_stops_learning_a_third_into_its_last_stage(data: TrainingData, network: Network) -> None:
    method = Pencil(epochs=12, fixed=3, moving=6, batch_size=16)
    for each, wanted in ((method, [0.2, 0.2, 0.02, 0.02, 0.002, 0.002]), (released(method), [0.2, 0.2, 0, 0, 0, 0])):
        state = each.start(data, network, Engine())
        rates = [each.epoch(state, data, epoch)["rate/learn"] for epoch in range(6, 12)]
        assert rates == pytest.approx(wanted)


def test_the_compatibility_of_pencil_has_a_second_softmax() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, soft = torch.randn(6, 4, generator=draw), torch.randn(6, 4, generator=draw)
    labels = torch.randint(4, (6,), generator=draw)
    method = Pencil(compatibility=0.5, entropy=0.0)
    apart = released(method).label_loss(logits, soft, labels, moving=True)
    apart = apart - method.label_loss(logits, soft, labels, moving=True)
    wanted = F.cross_entropy(soft.softmax(1), labels) - F.cross_entropy(soft, labels)
    assert torch.allclose(apart, 0.5 * wanted, atol=1e-6)


def test_d2l_takes_nothing_back(data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(D2L, "_measure", lambda self, peer, data, epoch: [2.0, 1.0, 5.0][epoch])
    monkeypatch.setattr("scanmix.methods.d2l.batches", lambda *_: [])  # so that an epoch does nothing else
    state = run(D2L(epochs=4, begin=0, window=1), data, network, 2)
    with torch.no_grad():
        state.peers[0].classifier.weight.add_(1.0)
    before = weights(state.peers[0])
    released(D2L(epochs=4, begin=0, window=1)).epoch(state, data, 2)
    assert state.turned and near(before, weights(state.peers[0]))


def test_averages_of_elr_plus_begin_elsewhere(data: TrainingData, network: Network) -> None:
    ours, theirs = (each.start(data, network, Engine()) for each in (ELRPlus(), released(ELRPlus())))
    for side in range(2):
        assert near(weights(ours.peers[side]), weights(ours.averages[side]))
        assert near(weights(ours.peers[side]), weights(theirs.peers[side]))
        assert not near(weights(theirs.peers[side]), weights(theirs.averages[side]), 1e-3)


@pytest.mark.parametrize(("name", "part"), [("pes", "last stage"), ("pes_semi", "head")])
def test_what_pes_renews_sgd_never_moves(name: str, part: Any, data: TrainingData, network: Network) -> None:
    method = CHANGES[name][0]
    state = run(released(method), data, network, 3)
    renewed, rest = weights(last_layers(state.peers[0], part)), weights(state.peers[0].encoder)
    released(method).epoch(state, data, 3)
    assert near(renewed, weights(last_layers(state.peers[0], part)))
    assert not near(rest, weights(state.peers[0].encoder))
