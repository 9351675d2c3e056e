"""GCE, SCE, JoCoR, CORES2 and SOP beside slow versions, and what each claims, on 64 tiny images."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.robust import generalized_cross_entropy, reverse_cross_entropy
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.cores import Cores
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.jocor import JoCoR
from scanmix.methods.robust_losses import GCE, SCE
from scanmix.methods.sop import SOP, SOPPlus, label_noise, shifted_prediction, squared_noise
from tests.methods.tiny import KIND, Network, near, run, weights

PLAIN: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.05}
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()


def probabilities(logits: Tensor) -> list[list[float]]:
    rows = [[math.exp(value) for value in row] for row in logits.tolist()]
    return [[value / sum(row) for value in row] for row in rows]


@pytest.mark.parametrize("power", [0.3, 0.7, 1.0])
def test_generalized_cross_entropy_by_hand(power: float, logits: Tensor) -> None:
    wanted = [(1 - row[label] ** power) / power for row, label in zip(probabilities(logits), LABELS, strict=True)]
    assert generalized_cross_entropy(logits, LABELS, power).tolist() == pytest.approx(wanted, abs=1e-6)


def test_generalized_cross_entropy_nears_cross_entropy(logits: Tensor) -> None:
    found = generalized_cross_entropy(logits, LABELS, 1e-4)
    assert torch.allclose(found, F.cross_entropy(logits, LABELS, reduction="none"), atol=1e-3)


def test_its_gradient_is_that_of_cross_entropy_times_a_power_of_the_probability(logits: Tensor) -> None:
    """Zhang and Sabuncu, section 3.3: labels of small probability count less."""
    (found,) = torch.autograd.grad(generalized_cross_entropy(logits, LABELS, 0.7).sum(), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, LABELS, reduction="sum"), logits)
    given = logits.softmax(1).gather(1, LABELS.unsqueeze(1))
    assert torch.allclose(found, plain * given**0.7, atol=1e-6)


def test_reverse_cross_entropy_by_hand(logits: Tensor) -> None:
    wanted = [
        -sum(p * (0.0 if c == label else -4.0) for c, p in enumerate(row))
        for row, label in zip(probabilities(logits), LABELS.tolist(), strict=True)
    ]
    assert reverse_cross_entropy(logits, LABELS, -4.0).tolist() == pytest.approx(wanted, abs=1e-6)


def test_both_can_be_cross_entropy(data: TrainingData, network: Network) -> None:
    wanted = weights(run(CrossEntropy(**PLAIN, weight_decay=1e-4, lr_drop="100%"), data, network).peers[0])
    for method in (GCE(**PLAIN, power=1e-5), SCE(**PLAIN, cross_entropy_weight=1.0, reverse_weight=0.0)):
        assert near(weights(run(method, data, network).peers[0]), wanted, atol=1e-3)
    assert not near(weights(run(GCE(**PLAIN), data, network).peers[0]), wanted, atol=1e-3)


TRUNCATED: dict[str, Any] = {"epochs": 12, "batch_size": 16, "learning_rate": 0.05, "truncate": 5, "decide_every": 3}


def test_the_truncated_loss_leaves_out_labels_of_small_probability(data: TrainingData, network: Network) -> None:
    method = GCE(**TRUNCATED)
    state: Any = method.start(data, network, Engine())
    for epoch in range(method.epochs):
        before = state.p_clean
        with torch.no_grad():
            probs = state.peers[0].eval().logits(data.eval_view(data.everything)).softmax(1)
        found = method.epoch(state, data, epoch)
        if epoch < 5:
            assert state.p_clean is None and "kept" not in found
        elif epoch in (5, 8, 11):  # Algorithm 1, by hand
            wanted = [float(row[label] > 0.5) for row, label in zip(probs.tolist(), data.labels.tolist(), strict=True)]
            assert state.p_clean.tolist() == [wanted] and found["kept"] == pytest.approx(sum(wanted) / len(wanted))
        else:
            assert state.p_clean is before
    kept, right = state.p_clean[0] == 1, data.labels == KIND
    assert float(right[kept].float().mean()) > float(right.float().mean()) + 0.15


def test_what_the_truncated_loss_leaves_out_is_not_learned(data: TrainingData, network: Network) -> None:
    still = {**TRUNCATED, "momentum": 0.0, "weight_decay": 0.0}

    def learned(epochs: int, **more: Any) -> list[Tensor]:
        return weights(run(GCE(**{**still, "epochs": epochs, **more}), data, network).peers[0])

    assert near(learned(7, least_probability=0.0), learned(7, truncate=None), atol=0)  # nothing is left out
    assert near(learned(7, least_probability=1.0), learned(5), atol=0)  # all labels are
    pinned = replace(data, trusted=torch.arange(len(data)) % 2 == 0)
    state: Any = run(GCE(**{**still, "least_probability": 1.0}), pinned, network)
    assert state.p_clean[0].tolist() == [1.0, 0.0] * (len(data) // 2)


def test_each_decision_of_the_truncated_loss_costs_a_forward_pass(data: TrainingData) -> None:
    cost, plain = (GCE(**{**TRUNCATED, "truncate": begin}).passes(64, 0.2)["training"] for begin in (5, None))
    assert cost.forward_only == plain.forward_only + 3 * 64 and cost.forward_backward == plain.forward_backward == 768


def test_the_joint_loss_by_hand(logits: Tensor) -> None:
    second = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    found = JoCoR(agreement=0.9).losses([logits.detach(), second], LABELS, 0)
    for i, (p, q) in enumerate(zip(probabilities(logits), probabilities(second), strict=True)):
        fit = -math.log(p[LABELS[i]]) - math.log(q[LABELS[i]])
        apart = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))
        for side in found:
            assert float(side[i]) == pytest.approx(0.1 * fit + 0.9 * apart, abs=1e-5)


def test_each_network_has_its_own_gradient_of_the_joint_loss(logits: Tensor) -> None:
    second = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    one, other = JoCoR(agreement=0.7).losses([logits, second], LABELS, 0)
    p, q = F.log_softmax(logits, 1), F.log_softmax(second, 1)
    apart = F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(q, p, reduction="sum", log_target=True)
    fit = F.cross_entropy(logits, LABELS, reduction="sum") + F.cross_entropy(second, LABELS, reduction="sum")
    wanted = torch.autograd.grad(0.3 * fit + 0.7 * apart, [logits, second])
    assert torch.allclose(torch.autograd.grad(one.sum(), logits)[0], wanted[0], atol=1e-6)
    assert torch.allclose(torch.autograd.grad(other.sum(), second)[0], wanted[1], atol=1e-6)


def test_both_networks_learn_the_same_rows_and_come_to_agree(data: TrainingData, network: Network) -> None:
    losses = [torch.tensor([1.0, 4.0, 3.0, 2.0])] * 2
    first, second = JoCoR().choose([torch.zeros(4, 2)] * 2, losses, 0.5, 0)
    assert first.tolist() == second.tolist() == [0, 3]

    def apart(agreement: float) -> float:
        method = JoCoR(epochs=20, batch_size=16, learning_rate=0.05, agreement=agreement, forget_rate=0.3, gradual=2)
        one, other = (peer.eval() for peer in run(method, data, network).peers)
        with torch.no_grad():
            views = data.eval_view(data.everything)
            return float((one.logits(views).softmax(1) - other.logits(views).softmax(1)).abs().mean())

    assert apart(0.9) < 0.7 * apart(0.0)


def test_the_sieve_keeps_labels_that_fit_better_than_a_random_one(data: TrainingData, network: Network) -> None:
    method = Cores(epochs=40, batch_size=16, learning_rate=0.05, momentum=0.9)
    state: Any = method.start(data, network, Engine())
    betas = []
    for epoch in range(method.epochs):
        found = method.epoch(state, data, epoch)
        betas.append(found["confidence_weight"])
        assert (state.p_clean is None) is (epoch < 13)
    assert betas[:5] == [0.0] * 5 and betas[10] == pytest.approx(1.0) and betas[-1] == 2.0
    kept, right = state.p_clean[0] == 1, data.labels == KIND
    assert set(state.p_clean.unique().tolist()) == {0.0, 1.0}
    assert float(right[kept].float().mean()) > float(right.float().mean()) + 0.2
    counts = torch.stack([(data.labels[kept] == c).sum() for c in range(4)]).float()
    assert torch.allclose(state.shares, counts / counts.sum())


def test_confidence_is_rewarded_by_the_mean_loss_of_labels(data: TrainingData, network: Network) -> None:
    """Without it the method is cross-entropy; with it predictions are surer."""
    plain: dict[str, Any] = {**PLAIN, "momentum": 0.9, "begin": 2}
    wanted = weights(run(CrossEntropy(**PLAIN, weight_decay=0.0), data, network).peers[0])
    state = run(Cores(**plain, confidence_weight=0.0), data, network)
    assert near(weights(state.peers[0]), wanted, atol=1e-5)

    def confidence(beta: float) -> float:
        method = Cores(**{**plain, "epochs": 16, "begin": 16}, confidence_weight=beta, plain=0, rising=0)
        peer = run(method, data, network).peers[0].eval()
        with torch.no_grad():
            return float(peer.logits(data.eval_view(data.everything)).softmax(1).amax(1).mean())

    assert confidence(2.0) > confidence(0.0)


def test_noise_variables_by_hand(logits: Tensor) -> None:
    draws = torch.Generator().manual_seed(2)
    u, v = torch.rand(6, 1, generator=draws), torch.rand(6, 3, generator=draws)
    given = F.one_hot(LABELS, 3).float()
    on, off = label_noise(u, v, given)
    shifted = shifted_prediction(logits, on, off)
    total = 0.0
    for i, p in enumerate(probabilities(logits)):
        raw = []
        for c in range(3):
            one = min(float(u[i]) ** 2, 1 - 1e-4) if c == LABELS[i] else 0.0
            less = 0.0 if c == LABELS[i] else min(float(v[i, c]) ** 2, 1 - 1e-4)
            assert (float(on[i, c]), float(off[i, c])) == pytest.approx((one, less), abs=1e-6)
            raw.append(max(p[c] + one - less, 1e-4))
            total += (float(p[c] == max(p)) + one - less - float(given[i, c])) ** 2
        assert shifted[i].tolist() == pytest.approx([value / sum(raw) for value in raw], abs=1e-5)
    assert float(squared_noise(logits, on, off, given)) == pytest.approx(total / 6, abs=1e-5)


def test_u_is_moved_by_the_first_loss_alone_and_v_by_the_second(logits: Tensor) -> None:
    given = F.one_hot(LABELS, 3).float()
    u, v = torch.full((6, 1), 0.5).requires_grad_(), torch.full((6, 3), 0.5).requires_grad_()
    on, off = label_noise(u, v, given)
    fit = -(given * shifted_prediction(logits, on, off).log()).sum()
    first: list[Any] = list(torch.autograd.grad(fit, [u, v], retain_graph=True, allow_unused=True))
    assert bool((first[0] < 0).all()) and first[1] is None, "more noise on the given class explains the label better"
    second: list[Any] = list(torch.autograd.grad(squared_noise(logits, on, off, given), [u, v], allow_unused=True))
    assert second[0] is None and bool((second[1] * given == 0).all()) and bool((second[1] != 0).any())


def test_the_noise_of_wrong_labels_grows(data: TrainingData, network: Network) -> None:
    state = run(SOP(epochs=40, batch_size=16, given_rate=1, others_rate=1), data, network)
    wrong, noise = data.labels != KIND, state.u.square().squeeze(1)
    assert float(noise[wrong].mean()) > 0.1 > 10 * float(noise[~wrong].mean())


def test_without_noise_sop_is_cross_entropy(data: TrainingData, network: Network) -> None:
    """Rates of 0 leave u and v where they were; the squares have no gradient for the network."""
    still: dict[str, Any] = {**PLAIN, "final_rate": 0.05, "given_rate": 0.0, "others_rate": 0.0, "weight_decay": 0.0}
    wanted = weights(run(CrossEntropy(**PLAIN, weight_decay=0.0, lr_drop="100%"), data, network).peers[0])
    assert near(weights(run(SOP(**still), data, network).peers[0]), wanted, atol=1e-3)


def test_the_two_views_of_sop_plus_are_held_together(logits: Tensor) -> None:
    strong = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    shifted = logits.detach().softmax(1)
    loss: Any = SOPPlus(consistency_weight=0.9, balance_weight=0.1).more([logits, strong], shifted)
    apart = sum(
        sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        for p, q in zip(probabilities(logits), probabilities(strong), strict=True)
    )
    balance = -sum(math.log(float(value)) for value in shifted.mean(0)) / 3
    assert float(loss.detach()) == pytest.approx(0.9 * apart / 6 + 0.1 * balance, abs=1e-5)
    weak_and_strong: list[Any] = list(torch.autograd.grad(loss, [logits, strong], allow_unused=True))
    assert weak_and_strong[0] is None and bool((weak_and_strong[1] != 0).any())
