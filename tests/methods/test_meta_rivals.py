"""What the rivals that learn how to learn, or from trusted labels, claim of themselves."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import scanmix
from scanmix.blocks.losses import prior_penalty
from scanmix.blocks.meta import synthetic_labels
from scanmix.blocks.selection import groups_of_classes
from scanmix.config import UserError
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.cleannet import CleanNet, similarities
from scanmix.methods.famus import FaMUS, weights_of_rows
from scanmix.methods.fsr import FSR, FSRState
from scanmix.methods.mentornet_dd import MentorNetDD, mentor_logits
from scanmix.methods.metacleaner import MetaCleaner, weighted_means
from scanmix.methods.mlnt import MLNT
from scanmix.methods.steps.mixmatch import Mixed
from scanmix.networks.inference import classify, predict_all
from scanmix.networks.peer import Peer
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


def test_weights_of_fsr_are_how_much_each_loss_lowers_that_of_the_queue() -> None:
    """Slow: differentiate through the step, by the weight that each loss has in it."""
    draws = torch.Generator().manual_seed(0)
    head = nn.Linear(5, 4)
    features, known = torch.randn(12, 5, generator=draws), torch.randn(7, 5, generator=draws)
    labels = torch.randn(12, 4, generator=draws).softmax(1)
    known_labels = torch.randint(0, 4, (7,), generator=draws)
    found, after = FSR(step_ahead=0.5).look_ahead(head, features, labels, known, known_labels)
    shares = torch.full((12,), 1 / 12, requires_grad=True)
    losses = -(labels * F.log_softmax(head(features), 1)).sum(1)
    slopes = torch.autograd.grad((shares * losses).sum(), (head.weight, head.bias), create_graph=True)
    weight, bias = head.weight - 0.5 * slopes[0], head.bias - 0.5 * slopes[1]
    (rises,) = torch.autograd.grad(F.cross_entropy(known @ weight.T + bias, known_labels), shares)
    wanted = [max(0.0, -float(rise)) for rise in rises]
    assert 0 in wanted and found.tolist() == pytest.approx([12 * one / sum(wanted) for one in wanted], rel=1e-4)
    assert torch.allclose(after["weight"], weight) and torch.allclose(after["bias"], bias)


def test_the_queue_of_fsr_has_the_best_fits_of_each_class_and_labels_that_are_known(data: TrainingData) -> None:
    known = torch.zeros(64, dtype=torch.bool)
    known[[5, 9]] = True
    state = FSRState([], torch.arange(64.0), torch.zeros(64, 4))
    for trusted in (None, known):
        found = FSR(queue=12)._chances(state, replace(data, trusted=trusted))
        rows = found.nonzero().squeeze(1).tolist()
        first = [row for row in range(64) if trusted is not None and trusted[row]]
        for label in range(4):
            of_class = [row for row in range(64) if data.labels[row] == label]
            of_class.sort(key=lambda row: (row not in first, row))
            assert sorted(of_class[:3]) == [row for row in rows if data.labels[row] == label]
            assert float(found[of_class].sum()) == pytest.approx(1)


def test_fsr_weighs_equally_until_its_burn_in_ends_and_remembers(data: TrainingData, network: Network) -> None:
    method = FSR(epochs=3, burn_in=1, score_memory=0.5, **PLAIN)
    state = method.start(data, network, Engine())
    assert method.epoch(state, data, 0)["learn/unused"] == 0
    first, scores = state.logits.clone(), state.scores.clone()
    assert bool((first != 0).all()) and float(scores.mean()) < 0, "a step lowers the mean loss"
    assert 0 < method.epoch(state, data, 1)["learn/unused"] < 1
    assert not torch.equal(first, state.logits) and not torch.equal(scores, state.scores)


def test_fsr_weighs_right_labels_more(data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    found = torch.zeros(64)

    def watched(weights: Tensor, trusted: Tensor | None) -> Tensor:
        found.copy_(weights)
        return weights

    monkeypatch.setattr("scanmix.methods.fsr.batches", lambda index, *_: [index])
    monkeypatch.setattr("scanmix.methods.fsr.pinned", watched)
    method = FSR(epochs=60, batch_size=64, learning_rate=0.05, mixup_alpha=0.0, queue=24)
    state = run(method, data, network)
    right = data.labels == KIND
    assert float(found[right].mean()) > 1.5 * float(found[~right].mean())
    answers = predict_all(method.predictor(state), data).argmax(1)
    assert float((answers == KIND)[~right].float().mean()) > 0.6


def a_batch(data: TrainingData, network: Network, method: FaMUS) -> tuple[Peer, Mixed, Tensor, Tensor]:
    """A network, 16 labeled and 12 unlabeled rows with soft targets, and a meta batch."""
    peer = method.start(data, network, Engine()).peers[0].double()
    draws = torch.Generator().manual_seed(0)
    rows, meta = data.eval_view(slice(0, 28)).double(), data.eval_view(slice(40, 52)).double()
    targets = torch.randn(28, 4, generator=draws).double().mul(2).softmax(1)
    return peer.train(), Mixed(rows, targets, 16), meta, F.one_hot(KIND[40:52], 4).double()


@pytest.mark.parametrize("gap_weight", [0.0, 3.0])
def test_the_weigher_of_famus_goes_down_the_meta_loss_after_the_step(
    gap_weight: float, data: TrainingData, network: Network
) -> None:
    """Slow: differentiate through a step in which only tensors with open gates keep their graph."""
    method = FaMUS(weigher_rate=0.5, gap_weight=gap_weight, prior_weight=0.7)
    peer, mixed, images, labels = a_batch(data, network, method)
    scores = torch.tensor([20.0, -20.0] * 7 + [20.0], dtype=torch.float64)
    peer.heads.get_parameter("gates.0").data.copy_(scores)
    whole, weigher = copy.deepcopy(classify(peer)), copy.deepcopy(peer.heads["weigher"])
    parameters = dict(list(whole.named_parameters())[-15:])
    logits = whole(mixed.inputs)
    rows = torch.cat(
        [
            F.cross_entropy(logits[:16], mixed.targets[:16], reduction="none"),
            (logits[16:].softmax(1) - mixed.targets[16:]).square().mean(1),
        ]
    )
    raw = weigher(rows.detach().unsqueeze(1)).squeeze(1)
    weighed = raw / raw.mean() * rows
    loss = weighed[:16].mean() + 5 * weighed[16:].mean() + 0.7 * prior_penalty(logits)
    slopes = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    stepped = {}
    for place, (name, slope) in enumerate(zip(parameters, slopes, strict=True)):
        gate = place >= 13 or place % 2 == 0
        stepped[name] = parameters[name].detach() - 0.3 * (slope if gate else slope.detach())
    after = functional_call(whole, stepped, (images,))
    meta = F.cross_entropy(after, labels) + 0.7 * prior_penalty(after)
    (of_meta,) = torch.autograd.grad(meta, stepped["1.weight"], retain_graph=True)
    gap = (slopes[13].mean() - of_meta.mean()) ** 2 + (slopes[13].std() - of_meta.std()) ** 2
    uphill = torch.autograd.grad(meta + gap_weight * gap, list(weigher.parameters()))
    before = weights(weigher)
    values, found = method.look_ahead(peer, mixed, images, labels, 5.0, 0.3, torch.Generator().manual_seed(0))
    assert torch.allclose(values, rows.detach()) and found.item() == pytest.approx(meta.item())
    wanted = [old - 0.5 * slope for old, slope in zip(before, uphill, strict=True)]
    assert near(weights(peer.heads["weigher"]), wanted, 1e-9) and not near(before, wanted, 1e-6)


def test_gates_of_famus_keep_to_their_budget_and_to_what_a_step_is_worth(data: TrainingData, network: Network) -> None:
    method = FaMUS(gate_rate=1.0, gate_budget=4, gate_weight=0.1)
    peer = method.start(data, network, Engine()).peers[0]
    scores = peer.heads.get_parameter("gates.0")
    nothing = {str(place): torch.zeros(3) for place in range(15)}
    for begin, sign in ((20.0, -1), (-20.0, 1)):
        scores.data.fill_(begin)
        for _ in range(400):
            method.gated_direction(peer, nothing, nothing, 0.1, torch.Generator().manual_seed(0))
        scores.data.fill_(begin / 10)
        method.gated_direction(peer, nothing, nothing, 0.1, torch.Generator().manual_seed(0))
        moved = scores.detach() - begin / 10
        assert bool((moved[:13] * sign > 0).all()) and float(moved[13:].abs().max()) == 0
    scores.data.zero_()
    method = FaMUS(gate_rate=1.0, gate_weight=0.0)
    slope, direction = {**nothing, "3": torch.ones(3)}, {**nothing, "3": torch.tensor([1.0, 1.0, -0.5])}
    method.gated_direction(peer, slope, direction, 0.1, torch.Generator().manual_seed(0))
    assert float(scores[3].detach()) > 0 and float(scores.detach().abs().sum()) == float(scores[3].detach())


def test_the_weigher_of_famus_learns_to_distrust_wrong_labels(data: TrainingData, network: Network) -> None:
    """A network that knows the classes; half of the labeled rows have another one."""
    method = FaMUS(weigher_rate=2.0, gap_weight=0.0, prior_weight=0.0)
    peer = method.start(data, network, Engine()).peers[0]
    views, known = data.eval_view(slice(0, 64)), F.one_hot(KIND, 4).float()
    for _ in range(60):
        peer.train()
        peer.step(F.cross_entropy(peer.logits(views), known), 0.05)
    labels = torch.cat([known[:16], known[16:32].roll(1, 1), known[32:48]])
    mixed = Mixed(views[:48], labels, 32)
    for _ in range(60):
        values, _ = method.look_ahead(peer, mixed, views[48:], known[48:], 1.0, 0.1, torch.Generator().manual_seed(0))
    found = weights_of_rows(peer, values).detach()
    assert float(found[:16].mean()) > 1.5 * float(found[16:32].mean())


def test_cleannet_says_at_once_that_it_needs_trusted_labels(
    data: TrainingData, network: Network, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"cleannet learns from labels that are known to be right, .* column `trusted`"):
        CleanNet().start(data, network, Engine())
    examples = scanmix.load("digits", per_class=4)[0]
    asked: dict[str, Any] = {"method": "cleannet", "out": tmp_path / "run", "progress": False, "epochs": 4}
    for untold in (examples, examples.trusting([True] * 40)):
        with pytest.raises(UserError, match="known to be right"):
            scanmix.train(untold, labels={"trust_decided": False}, **asked)
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_similarities_of_cleannet_by_hand(data: TrainingData, network: Network) -> None:
    known = replace(data, trusted=torch.ones(64, dtype=torch.bool))
    peer = CleanNet().start(known, network, Engine()).peers[0]
    draws = torch.Generator().manual_seed(0)
    features, references = torch.randn(6, 16, generator=draws), torch.randn(4, 5, 16, generator=draws)
    labels = torch.tensor([0, 1, 2, 3, 1, 1])
    found = similarities(peer, features, labels, references)
    for row, label in enumerate(labels.tolist()):
        hidden = [peer.heads["reference"](one) for one in references[label]]
        scores = torch.stack([peer.heads["attention"](one).squeeze() for one in hidden]).exp()
        whole = sum(score / scores.sum() * one for score, one in zip(scores, hidden, strict=True))
        of_class, of_image = peer.heads["prototype"](whole), peer.heads["query"](features[row])
        wanted = float((of_class @ of_image / (of_class.norm() * of_image.norm())).detach())
        assert float(found[row].detach()) == pytest.approx(wanted, abs=1e-5)


def test_cleannet_learns_which_labels_are_wrong_from_few_that_are_right(data: TrainingData, network: Network) -> None:
    """Trusted labels of three classes alone: the verifier serves the fourth, too."""
    right = data.labels == KIND
    trusted = right & (KIND != 3) & (torch.arange(64) < 40)
    method = CleanNet(epochs=24, burn_in=8, batch_size=16, verifier_steps=1600, references=4, verifier_rate=0.05)
    state = run(method, replace(data, trusted=trusted), network)
    clean, rest = state.p_clean[0] > 0.5, ~trusted
    assert float(right[rest & clean].float().mean()) > float(right[rest].float().mean()) + 0.2
    found = predict_all(method.predictor(state), data).argmax(1)
    assert float((found == KIND)[~right].float().mean()) > 0.6


def test_weighted_means_of_metacleaner_by_hand() -> None:
    draws = torch.Generator().manual_seed(0)
    members, shares = torch.randn(3, 5, 4, generator=draws), torch.rand(3, 5, generator=draws)
    found = weighted_means(members, shares)
    for group in range(3):
        wanted = sum(shares[group, k] * members[group, k] for k in range(5)) / sum(shares[group].tolist())
        assert torch.allclose(found[group], wanted, atol=1e-6)
    assert weighted_means(members, torch.zeros(3, 5)).abs().max() == 0


def test_the_cleaner_weighs_members_that_do_not_fit_less(data: TrainingData, network: Network) -> None:
    method = MetaCleaner(epochs=40, batch_size=20, learning_rate=0.05)
    state = run(method, data, network)
    peer, right = state.peers[0], data.labels == KIND
    found = predict_all(method.predictor(state), data).argmax(1)
    assert float((found == KIND)[~right].float().mean()) > 0.6
    groups = torch.cat(
        [groups_of_classes(data.labels, 4, 5, torch.Generator().manual_seed(seed)) for seed in range(20)]
    )
    with torch.no_grad():
        features = predict_all(peer.encoder, data)
        answers = peer.heads["cleaner"](features[groups].flatten(1))
    assert float(answers[right[groups]].mean()) > 1.1 * float(answers[~right[groups]].mean())


def test_the_mentor_of_dd_learns_from_trusted_labels_which_losses_are_right(
    data: TrainingData, network: Network
) -> None:
    right = data.labels == KIND
    trusted = right & (torch.arange(64) < 20)
    method = MentorNetDD(epochs=60, batch_size=8, learning_rate=0.05, weight_decay=0.0, dropout=0.0, early_dropout=0.0)
    state = run(method, replace(data, trusted=trusted), network)
    losses = F.cross_entropy(predict_all(method.predictor(state), data), data.labels, reduction="none")
    found = method.curriculum(state.peers[0], losses, torch.tensor(state.threshold), 0.5)
    rest = ~trusted
    assert float(found[rest & right].mean()) > float(found[rest & ~right].mean()) + 0.3
    assert method.curriculum(state.peers[0], losses, torch.tensor(1.0), 0.18).tolist() == [1] * 64


def test_the_lesson_of_dd_by_hand(data: TrainingData, network: Network) -> None:
    trusted = torch.arange(64) < 3
    known = replace(data, trusted=trusted)
    peer = MentorNetDD().start(known, network, Engine()).peers[0]
    logits, rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    threshold = torch.tensor(0.7)
    found = MentorNetDD(lesson_weight=3.0).lesson(
        peer, logits, known, rows, (threshold, 0.4), torch.Generator().manual_seed(1)
    )
    shift = torch.randint(1, 4, (6,), generator=torch.Generator().manual_seed(1))
    total = 0.0
    for row in range(3):
        label = int(data.labels[row])
        for asked, is_right in ((label, True), ((label + int(shift[row])) % 4, False)):
            loss = -logits[row].log_softmax(0)[asked]
            chance = float(mentor_logits(peer, loss.view(1), threshold, 0.4).sigmoid().detach())
            total -= math.log(chance if is_right else 1 - chance)
    assert isinstance(found, Tensor) and float(found.detach()) == pytest.approx(3 * total / 6, rel=1e-4)
    found.backward()
    assert all(part.grad is not None for name, part in peer.heads.named_parameters() if "hh" not in name)
    assert peer.classifier.weight.grad is None


def test_dd_needs_trusted_labels(data: TrainingData, network: Network) -> None:
    with pytest.raises(UserError, match="mentornet_dd learns from labels that are known to be right"):
        MentorNetDD().start(data, network, Engine())
