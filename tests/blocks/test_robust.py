"""Losses that do not take a label at its word, beside slow versions written class by class."""

import math

import pytest
import torch
from torch import Tensor

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.robust import (
    backward_loss,
    bootstrap_targets,
    divergence_from,
    early_learning_term,
    forward_loss,
    relabeling_loss,
    running_targets,
)
from scanmix.blocks.transition import estimate_transition

T = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 2, 1, 0])


def probabilities(logits: Tensor) -> list[list[float]]:
    rows = [[math.exp(value) for value in row] for row in logits.tolist()]
    return [[value / sum(row) for value in row] for row in rows]


@pytest.mark.parametrize("trust", [0.8, 1.0, 0.0])
@pytest.mark.parametrize("hard", [True, False])
def test_bootstrap_targets_by_hand(hard: bool, trust: float, logits: Tensor, labels: Tensor) -> None:
    given = torch.eye(3)[labels]
    found = bootstrap_targets(logits, given, trust, hard=hard)
    for i, row in enumerate(probabilities(logits)):
        said = [float(row[c] == max(row)) for c in range(3)] if hard else row
        wanted = [trust * float(labels[i] == c) + (1 - trust) * said[c] for c in range(3)]
        assert found[i].tolist() == pytest.approx(wanted, abs=1e-6)


def test_trust_may_be_of_each_row(logits: Tensor, labels: Tensor) -> None:
    given, trust = torch.eye(3)[labels], torch.linspace(0, 1, 6).unsqueeze(1)
    found = bootstrap_targets(logits, given, trust, hard=True)
    for i in range(6):
        alone = bootstrap_targets(logits[i : i + 1], given[i : i + 1], float(trust[i]), hard=True)
        assert torch.allclose(found[i : i + 1], alone)


def test_soft_bootstrapping_adds_entropy(logits: Tensor, labels: Tensor) -> None:
    """Not detached it is beta CE + (1 - beta) H(p), in value and in gradient (Reed et al., section 3.2)."""
    given = torch.eye(3)[labels]
    one = soft_cross_entropy(logits, bootstrap_targets(logits, given, 0.9, hard=False))
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    other = 0.9 * soft_cross_entropy(logits, given) + 0.1 * entropy
    assert torch.allclose(one, other)
    assert torch.allclose(torch.autograd.grad(one, logits)[0], torch.autograd.grad(other, logits)[0], atol=1e-6)


def test_forward_loss_by_hand(logits: Tensor, labels: Tensor) -> None:
    rows = probabilities(logits)
    wanted = [-math.log(sum(row[i] * float(T[i, y]) for i in range(3))) for row, y in zip(rows, labels, strict=True)]
    assert forward_loss(logits, labels, T).item() == pytest.approx(sum(wanted) / 6, rel=1e-5)
    assert torch.allclose(forward_loss(logits, labels, torch.eye(3)), torch.nn.functional.cross_entropy(logits, labels))


def test_backward_loss_by_hand(logits: Tensor, labels: Tensor) -> None:
    inverse, rows = torch.linalg.inv(T), probabilities(logits)
    wanted = [
        sum(float(inverse[y, k]) * -math.log(row[k]) for k in range(3)) for row, y in zip(rows, labels, strict=True)
    ]
    assert backward_loss(logits, labels, inverse).item() == pytest.approx(sum(wanted) / 6, rel=1e-4)


def test_the_backward_loss_is_unbiased(logits: Tensor) -> None:
    """Averaged over the labels that T gives, it is the loss of the true label (Theorem 1)."""
    inverse = torch.linalg.inv(T)
    for true in range(3):
        label = torch.tensor([true])
        clean = torch.nn.functional.cross_entropy(logits[:1], label)
        given = [float(T[true, y]) * backward_loss(logits[:1], torch.tensor([y]), inverse) for y in range(3)]
        assert torch.allclose(torch.stack(given).sum(), clean, atol=1e-5)


def test_the_forward_loss_recovers_the_clean_posterior() -> None:
    """A linear model on one-hot inputs: minimizing the loss of noisy labels ends at the posterior of clean ones."""
    posterior = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.05, 0.15, 0.8], [0.3, 0.3, 0.4]])
    noisy = posterior @ T  # P(given | x), the labels in the limit of many of them
    weights = torch.zeros(4, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = [forward_loss(weights[i : i + 1], torch.tensor([y]), T) for i in range(4) for y in range(3)]
        loss = (torch.stack(each) * noisy.flatten()).sum()
        torch.autograd.backward(loss)
        return loss

    for _ in range(5):
        optimizer.step(closure)
    assert torch.allclose(weights.softmax(1), posterior, atol=2e-3)
    assert not torch.allclose(weights.softmax(1), noisy, atol=0.02)


def test_the_early_learning_term_by_hand_and_its_gradient_is_in_p_alone(logits: Tensor) -> None:
    remembered = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) / 3
    remembered.requires_grad_()
    rows = probabilities(logits)
    wanted = [math.log(1 - sum(q * p for q, p in zip(remembered[i].tolist(), rows[i], strict=True))) for i in range(6)]
    term = early_learning_term(logits, remembered.detach())
    assert term.item() == pytest.approx(sum(wanted) / 6, rel=1e-4)
    (gradient,) = torch.autograd.grad(term, logits)
    # A step downhill moves p toward the class that was remembered.
    moved = (logits - gradient).softmax(1)
    assert bool(((moved * remembered).sum(1) > (logits.softmax(1) * remembered).sum(1)).all())


def test_the_early_learning_term_is_finite_for_certain_predictions() -> None:
    sure = torch.tensor([[1e4, 0.0]], requires_grad=True)
    term = early_learning_term(sure, torch.tensor([[1.0, 0.0]]))
    assert math.isfinite(term.item())
    assert bool(torch.autograd.grad(term, sure)[0].isfinite().all())


def test_running_targets_converge_to_what_is_always_said(logits: Tensor) -> None:
    table = torch.zeros(6, 3)
    for _ in range(60):
        table = running_targets(table, logits, 0.7)
    assert not table.requires_grad
    assert torch.allclose(table, logits.softmax(1).detach(), atol=1e-5)
    first = running_targets(torch.zeros(6, 3), logits, 0.7)
    assert torch.allclose(first, 0.3 * logits.softmax(1).detach(), atol=1e-5)


def test_divergence_by_hand_with_gradients_for_both(logits: Tensor) -> None:
    soft = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    p, q = probabilities(logits), probabilities(soft)
    wanted = sum(p[i][c] * math.log(p[i][c] / q[i][c]) for i in range(6) for c in range(3)) / 6
    found = divergence_from(logits, soft)
    assert found.item() == pytest.approx(wanted, rel=1e-4)
    toward_labels = torch.autograd.grad(found, soft)[0]
    assert torch.allclose(toward_labels, (soft.softmax(1) - logits.softmax(1)).detach() / 6, atol=1e-6)
    assert divergence_from(soft, soft).item() == pytest.approx(0, abs=1e-6)


def test_the_transition_matrix_is_read_at_the_surest_examples() -> None:
    """Rows of a mixture: some examples belong to one class for certain, and are predicted as T says."""
    generator = torch.Generator().manual_seed(0)
    posterior = torch.distributions.Dirichlet(torch.full((3,), 0.2)).sample((997,))
    posterior = torch.cat([posterior * 0.98 + 0.02 / 3, torch.eye(3)])
    predicted = (posterior @ T)[torch.randperm(1000, generator=generator)]
    before = predicted.clone()
    assert torch.allclose(estimate_transition(predicted, 1.0).float(), T, atol=1e-5)
    assert torch.equal(predicted, before), "what is set aside for one class must stay for the next"
    assert torch.allclose(estimate_transition(predicted, 0.97).float(), T, atol=0.05)


def test_outliers_are_set_aside() -> None:
    predicted = T.repeat(100, 1)
    predicted[7] = torch.tensor([0.999, 0.0005, 0.0005])
    assert torch.allclose(estimate_transition(predicted, 0.97)[0].float(), T[0], atol=1e-5)
    assert not torch.allclose(estimate_transition(predicted, 1.0)[0].float(), T[0], atol=0.1)


def test_rows_of_the_transition_matrix_sum_to_one() -> None:
    predicted = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(estimate_transition(predicted).sum(1), torch.ones(4, dtype=torch.float64))


def test_the_relabeling_loss_by_hand() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(5, 4, generator=draws), torch.rand(5, 4, generator=draws).softmax(1)
    p = logits.softmax(1).double()
    fit = -sum(float(targets[i, c]) * math.log(p[i, c]) for i in range(5) for c in range(4)) / 5
    prior = sum(0.25 * math.log(0.25 / float(p[:, c].mean())) for c in range(4))
    entropy = -sum(float(p[i, c]) * math.log(p[i, c]) for i in range(5) for c in range(4)) / 5
    assert float(relabeling_loss(logits, targets, 0.8, 0.4)) == pytest.approx(fit + 0.8 * prior + 0.4 * entropy)
