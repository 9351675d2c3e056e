"""What each rival claims of itself, on 64 tiny images a third of whose labels are wrong."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import METHODS, Method
from scanmix.methods.bootstrap import Bootstrap
from scanmix.methods.co_teaching import CoTeaching
from scanmix.methods.co_teaching_plus import CoTeachingPlus
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.decoupling import Decoupling
from scanmix.methods.elr import ELR
from scanmix.methods.joint import Joint
from scanmix.methods.loss_correction import Backward, Forward
from scanmix.methods.mentornet import MentorNet
from scanmix.methods.pencil import Pencil
from scanmix.networks.inference import classify, per_sample_losses, predict_all
from scanmix.training import resolve
from tests.methods.tiny import KIND, Network, near, run, weights


@pytest.mark.parametrize("answer", ["hard", "soft"])
def test_bootstrapping_that_trusts_labels_is_cross_entropy(answer: Any, data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}
    wanted = weights(run(CrossEntropy(**plain), data, network).peers[0])
    full = weights(run(Bootstrap(**plain, answer=answer, trust=1.0), data, network).peers[0])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(full, wanted, strict=True))
    less = weights(run(Bootstrap(**plain, answer=answer, trust=0.5), data, network).peers[0])
    assert not all(torch.allclose(one, other, atol=1e-3) for one, other in zip(less, wanted, strict=True))


def test_a_detached_answer_has_another_gradient(data: TrainingData, network: Network) -> None:
    through, cut = (
        weights(run(Bootstrap(epochs=1, batch_size=32, answer="soft", detach=detach), data, network).peers[0])
        for detach in (False, True)
    )
    assert not near(through, cut)


@pytest.mark.parametrize("kind", [Forward, Backward])
def test_labels_held_out_teach_nothing_in_the_first_stage(
    kind: type[Forward], data: TrainingData, network: Network
) -> None:
    method = kind(epochs=4, batch_size=16, estimation=2, held_out=0.25)
    held = torch.randperm(64, generator=data.generator("learn", 0, "split"))[:16]
    other = data.labels.clone()
    other[held] = (other[held] + 1) % 4
    changed = dataclasses.replace(data, labels=other)
    assert near(weights(run(method, data, network, 2).peers[0]), weights(run(method, changed, network, 2).peers[0]))


def test_the_second_stage_begins_anew(data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Forward(epochs=4, batch_size=16, estimation=2)
    state = run(method, data, network, 2)
    assert state.transition is None, "not before the first stage is over"
    fresh = [value.detach().clone() for value in state.fresh[0].parameters()]
    monkeypatch.setattr(Forward, "_train_pass", lambda *_: None)
    method.epoch(state, data, 2)
    assert near(weights(state.peers[0]), fresh) and not state.peers[0].optimizer.state
    found: Any = state.transition
    assert found.shape == (4, 4)


def test_predictions_are_kept_at_the_lowest_loss_on_labels_held_out(data: TrainingData, network: Network) -> None:
    method = Forward(epochs=20, batch_size=16, estimation=10, held_out=0.25, learning_rate=0.05)
    state = method.start(data, network, Engine())
    held = torch.randperm(64, generator=data.generator("learn", 0, "split"))[:16]
    losses = []
    for epoch in range(10):
        method.epoch(state, data, epoch)
        logits = predict_all(classify(state.peers[0]), data)
        losses.append((float(F.cross_entropy(logits[held], data.labels[held])), logits.softmax(1)))
    lowest, kept = min(losses, key=lambda pair: pair[0])
    assert state.lowest == pytest.approx(lowest) and torch.allclose(state.best, kept)


def test_a_matrix_nearer_to_identity_is_better_conditioned(data: TrainingData, network: Network) -> None:
    found = []
    for identity in (0.0, 0.5):
        state = run(Backward(epochs=3, batch_size=16, estimation=2, identity=identity), data, network)
        found.append(float(torch.linalg.cond(state.transition)))
    assert found[1] < found[0]


def test_networks_that_agree_learn_nothing_by_decoupling(data: TrainingData, network: Network) -> None:
    method = Decoupling(epochs=4, warmup=1, batch_size=16, weight_decay=0.0)
    state = run(method, data, network, 2)
    state.peers[1].load_state_dict(state.peers[0].state_dict())
    for peer in state.peers:
        peer.optimizer.state.clear()
    before = weights(state.peers[0])
    assert method.epoch(state, data, 2)["learn/differ"] == 0
    assert near(before, weights(state.peers[0]))
    method.epoch(state, data, 0)  # in warm-up both learn from all
    assert not near(before, weights(state.peers[0]))


def test_each_is_taught_by_the_other() -> None:
    losses = [torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([4.0, 3.0, 2.0, 1.0])]
    logits = [torch.zeros(4, 2)] * 2
    first, second = CoTeaching().choose(logits, losses, 0.5, 0)
    assert first.tolist() == [3, 2] and second.tolist() == [0, 1]


def test_co_teaching_leaves_out_more_and_more(data: TrainingData, network: Network) -> None:
    method = CoTeaching(epochs=6, batch_size=16, forget_rate=0.4, gradual=4)
    state = method.start(data, network, Engine())
    left_out = [method.epoch(state, data, epoch)["left_out"] for epoch in range(6)]
    assert left_out == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert state.p_clean is None


def test_co_teaching_keeps_sets_that_are_cleaner_than_random(data: TrainingData, network: Network) -> None:
    method = CoTeaching(epochs=25, batch_size=16, learning_rate=0.05, gradual=15, lr_drop=25)
    state = run(method, data, network)
    right = data.labels == KIND
    for peer in state.peers:
        kept = per_sample_losses(peer, data).losses.argsort()[: int((1 - state.forget) * 64)]
        assert float(right[kept].float().mean()) > float(right.float().mean()) + 0.15
    assert 0.1 < state.forget < 0.6, "a third is wrong"
    assert state.p_clean.shape == (2, 64)


def test_co_teaching_plus_learns_where_predictions_differ() -> None:
    logits = [torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]]), torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0]])]
    losses = [torch.tensor([3.0, 2.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 0.0, 3.0])]
    method = CoTeachingPlus(alike=2)
    first, second = method.choose(logits, losses, 0.7, 2)
    assert first.tolist() == [0, 1] and second.tolist() == [3, 1], "row 2 has the smallest loss, but all agree on it"
    assert [len(part) for part in method.choose([logits[0]] * 2, losses, 0.7, 2)] == [0, 0]
    assert [part.tolist() for part in method.choose(logits, losses, 0.5, 1)] == [[2, 0], [2, 3]]


def test_the_threshold_of_mentornet_begins_at_the_first_batch(data: TrainingData, network: Network) -> None:
    method = MentorNet(epochs=20, batch_size=64, quantile=0.5)
    state = method.start(data, network, Engine())
    peer = state.peers[0]
    order, draws = data.generators("learn", 0, "order", "views")
    index = torch.randperm(64, generator=order)
    peer.train()
    with torch.no_grad():
        logits = classify(peer)(data.views.weak(data.images[index], draws))
    losses = F.cross_entropy(logits, data.labels[index], reduction="none")
    state = method.start(data, network, Engine())
    method.epoch(state, data, 0)
    assert state.threshold == pytest.approx(float(losses.quantile(0.5)), rel=1e-5)


def test_mentornet_counts_small_losses_in_the_middle_of_training(data: TrainingData, network: Network) -> None:
    method = MentorNet(epochs=10, batch_size=64, quantile=0.5, early_dropout=0.0, dropout=0.0, loss_decay=0.0)
    state = method.start(data, network, Engine())
    shares = [method.epoch(state, data, epoch)["learn/weight"] for epoch in range(9)]
    assert shares[0] == shares[1] == 1.0
    assert shares[2:] == pytest.approx([0.5] * 7)


def test_the_weight_decay_of_mentornet_follows_the_weights(data: TrainingData, network: Network) -> None:
    """A first step of SGD: decay takes rate x mean weight x decay of each parameter, here with a mean weight of 0.5."""
    found = []
    for decay in (0.0, 0.1):
        method = MentorNet(epochs=10, batch_size=64, quantile=0.5, dropout=0.0, loss_decay=0.0, weight_decay=decay)
        state = method.start(data, network, Engine())
        start = weights(state.peers[0])
        rate = method.epoch(state, data, 4)["rate/learn"]
        found.append(weights(state.peers[0]))
    for before, plain, decayed in zip(start, *found, strict=True):
        assert torch.allclose(plain - decayed, rate * 0.5 * 0.1 * before, atol=1e-6)


def test_labels_of_pencil_move_in_the_second_stage_alone(data: TrainingData, network: Network) -> None:
    method = Pencil(epochs=9, fixed=3, moving=6, batch_size=16, label_rate=50.0)
    state = method.start(data, network, Engine())
    tables = [state.label_logits.clone()]
    for epoch in range(9):
        method.epoch(state, data, epoch)
        tables.append(state.label_logits.clone())
    moved = [not torch.equal(one, other) for one, other in itertools.pairwise(tables)]
    assert moved == [False] * 3 + [True] * 3 + [False] * 3


def test_the_loss_of_pencil_by_hand() -> None:
    logits, soft = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    p, y = logits.softmax(1), soft.softmax(1)
    divergence = (p * (p / y).log()).sum() / 5
    compatibility = -sum(float(y[i, label].log()) for i, label in enumerate(labels)) / 5
    entropy = -(p * p.log()).sum() / 5
    method = Pencil(compatibility=0.3, entropy=0.7)
    both = float(divergence) / 4 + 0.3 * compatibility + 0.7 * float(entropy) / 4
    assert float(method.label_loss(logits, soft, labels, moving=True)) == pytest.approx(both, rel=1e-5)
    assert float(method.label_loss(logits, soft, labels, moving=False)) == pytest.approx(float(divergence) / 4)


@pytest.mark.parametrize(
    ("method", "labels"),
    [
        (
            Pencil(epochs=60, fixed=15, moving=60, batch_size=16, learning_rate=0.02, label_rate=100.0),
            lambda state: state.label_logits,
        ),
        (Joint(epochs=40, joint=40, begin=15, batch_size=16, learning_rate=0.02), lambda state: state.targets),
        (ELR(epochs=40, batch_size=16, learning_rate=0.02, regularization=1.0), lambda state: state.targets),
    ],
    ids=["pencil", "joint", "elr"],
)
def test_labels_that_move_become_better(
    method: Method, labels: Callable[[Any], Tensor], data: TrainingData, network: Network
) -> None:
    found = labels(run(method, data, network)).argmax(1)
    given = float((data.labels == KIND).float().mean())
    assert float((found == KIND).float().mean()) > given + 0.15


def test_the_labels_of_joint_are_means_of_what_was_said(data: TrainingData, network: Network) -> None:
    method = Joint(epochs=8, joint=6, begin=1, remembered=3, batch_size=16)
    state = method.start(data, network, Engine())
    given = state.targets.clone()
    for epoch in range(6):
        method.epoch(state, data, epoch)
        if epoch < 2:
            assert torch.equal(state.targets, given), "three epochs are not yet over"
        else:
            assert torch.allclose(state.targets, state.said.mean(0))
    said = state.said.clone()
    assert torch.allclose(said.sum(2), torch.ones(3, 64), atol=1e-5)
    method.epoch(state, data, 6)
    assert torch.equal(state.said, said), "the second phase writes nothing down"


def test_the_second_phase_of_joint_begins_anew(data: TrainingData, network: Network) -> None:
    """It is plain training of a fresh network on soft labels: what came before shows in the labels alone."""
    method = Joint(epochs=4, joint=2, begin=0, remembered=1, batch_size=16)
    state = run(method, data, network, 2)
    fresh = method.start(data, network, Engine())
    fresh.peers[0].load_state_dict(state.fresh[0].state_dict())
    fresh.targets = state.targets.clone()
    method.epoch(state, data, 2)
    method.epoch(fresh, data, 2)
    assert near(weights(state.peers[0]), weights(fresh.peers[0]))


def test_the_targets_of_elr_after_one_epoch(data: TrainingData, network: Network) -> None:
    state = run(ELR(epochs=1, batch_size=16, memory=0.7), data, network)
    assert torch.allclose(state.targets.sum(1), torch.full((64,), 0.3), atol=1e-5)


def test_elr_without_its_term_is_cross_entropy(data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {"epochs": 2, "batch_size": 32, "weight_decay": 1e-3}
    assert near(
        weights(run(ELR(**plain, regularization=0.0), data, network).peers[0]),
        weights(run(CrossEntropy(**plain), data, network).peers[0]),
    )


def test_elr_memorizes_less_than_cross_entropy_and_is_right_more_often(data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {"epochs": 80, "batch_size": 16, "learning_rate": 0.02, "weight_decay": 0.0, "lr_drop": 80}
    wrong = data.labels != KIND
    found = {}
    for name, method in (("elr", ELR(**plain, regularization=2.0)), ("control", CrossEntropy(**plain))):
        prediction = predict_all(classify(run(method, data, network).peers[0]), data).argmax(1)
        found[name] = [
            float((prediction == labels).float()[of].mean()) for labels, of in ((data.labels, wrong), (KIND, ...))
        ]
    assert found["elr"][0] < found["control"][0] - 0.4, "wrong labels predicted"
    assert found["elr"][1] > found["control"][1] + 0.2, "accuracy"


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].about.remembers])
def test_a_method_that_remembers_examples_refuses_to_see_others(name: str) -> None:
    with pytest.raises(UserError, match=rf"draw\.per_epoch .* {name} keeps some of each"):
        resolve(name, "made", overrides={"draw": {"per_epoch": 50}})
