import itertools
import math

import pytest
import torch
from torch import Tensor

from scanmix.blocks.em import em_terms, expectation, log_joint, log_likelihoods, log_posterior, log_probabilities

SHAPES = [(2, 2, 0), (5, 3, 1), (12, 4, 2), (9, 10, 3)]
"""(N, C, seed)."""


def made(count: int, classes: int, seed: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator)
    return log_probabilities(logits), torch.randint(classes, (count,), generator=generator)


def slow_posterior(probs: list[list[float]], labels: list[int]) -> list[list[list[float]]]:
    """Eq. 5 as it is printed, with the bit first."""
    count = len(labels)
    table = [[[0.0] * count for _ in range(count)] for _ in range(2)]
    for z, i, j in itertools.product(range(2), range(count), range(count)):
        if labels[j] != labels[i]:
            table[z][i][j] = 1 - z
        else:
            dot = sum(a * b for a, b in zip(probs[j], probs[i], strict=True))
            table[z][i][j] = dot**z * (1 - dot) ** (1 - z)
    return table


@pytest.mark.parametrize(("count", "classes", "seed"), SHAPES)
def test_the_posterior_is_eq_5(count: int, classes: int, seed: int) -> None:
    log_probs, labels = made(count, classes, seed)
    found = log_posterior(log_probs, labels).exp()
    slow = torch.tensor(slow_posterior(log_probs.exp().tolist(), labels.tolist()), dtype=torch.float64)
    assert found.shape == (2, count, count) and found.dtype == torch.float64
    assert torch.allclose(found, slow, rtol=1e-12, atol=1e-15)
    assert torch.allclose(found.sum(0), torch.ones(count, count, dtype=torch.float64))


def test_a_sure_network_keeps_its_small_doubts() -> None:
    """Where 1 - p(z = 1) is rounded to nothing, p(z = 0) is not."""
    log_probs = log_probabilities(torch.tensor([[60.0, 0.0], [60.0, 0.0]]))
    strangers, neighbors = log_posterior(log_probs, torch.tensor([0, 0]))
    assert neighbors.exp()[0, 1] == 1.0
    assert strangers[0, 1].item() == pytest.approx(math.log(2) - 60.0, rel=1e-12)


def test_beyond_what_a_float_can_hold_nothing_is_infinite() -> None:
    log_probs = log_probabilities(torch.tensor([[2000.0, 0.0], [2000.0, 0.0], [0.0, 2000.0]]))
    terms = em_terms(log_probs, log_probs, torch.tensor([0, 0, 0]))
    assert all(math.isfinite(value) for value in terms)
    assert terms.log_likelihood == pytest.approx(terms.bound + terms.kl)


@pytest.mark.parametrize(("count", "classes", "seed"), SHAPES)
def test_summing_the_bits_out_of_the_joint_leaves_the_classifier(count: int, classes: int, seed: int) -> None:
    """And dividing by what is left gives Eq. 5: joint, posterior and likelihood are of one model (Bayes)."""
    log_probs, labels = made(count, classes, seed)
    joint = log_joint(log_probs, labels)
    evidence = joint.logsumexp(0)
    assert torch.allclose(evidence, log_likelihoods(log_probs, labels).unsqueeze(1).expand(count, count))
    assert torch.allclose((joint - evidence).exp(), log_posterior(log_probs, labels).exp())


def slow_terms(before: Tensor, now: Tensor, labels: list[int]) -> dict[str, float]:
    """Pair by pair, bit by bit, in plain floats."""
    q, new = (slow_posterior(log_probs.exp().tolist(), labels) for log_probs in (before, now))
    old_p, new_p = before.exp().tolist(), now.exp().tolist()
    found = dict.fromkeys(("log_likelihood", "expected", "entropy", "kl", "gain"), 0.0)
    count = len(labels)
    for i, j in itertools.product(range(count), range(count)):
        found["log_likelihood"] += math.log(new_p[i][labels[i]])
        for z in range(2):
            if q[z][i][j] == 0:
                continue
            joint = math.log(new[z][i][j] * new_p[i][labels[i]])
            found["expected"] += q[z][i][j] * joint
            found["gain"] += q[z][i][j] * (joint - math.log(q[z][i][j] * old_p[i][labels[i]]))
            found["entropy"] -= q[z][i][j] * math.log(q[z][i][j])
            found["kl"] += q[z][i][j] * math.log(q[z][i][j] / new[z][i][j])
    means = {name: value / count**2 for name, value in found.items()}
    return means | {"bound": means["expected"] + means["entropy"]}


@pytest.mark.parametrize(("count", "classes", "seed"), SHAPES)
def test_terms_are_what_slow_loops_add_up(count: int, classes: int, seed: int) -> None:
    before, labels = made(count, classes, seed)
    now = made(count, classes, seed + 100)[0]
    terms = em_terms(before, now, labels)
    assert terms._asdict() == pytest.approx(slow_terms(before, now, labels.tolist()), rel=1e-9, abs=1e-12)
    assert terms.log_likelihood == pytest.approx(terms.bound + terms.kl, abs=1e-12)
    assert terms.kl >= 0


def test_right_after_the_e_step_the_bound_touches_the_log_likelihood() -> None:
    log_probs, labels = made(12, 4, 2)
    terms = em_terms(log_probs, log_probs, labels)
    assert terms.kl == 0.0 and terms.gain == 0.0 and terms.bound == pytest.approx(terms.log_likelihood, abs=1e-14)


@pytest.mark.parametrize("seed", range(20))
def test_lemma_1(seed: int) -> None:
    """The log-likelihood rises by what E_q[log p(y, z | x)] rises by, and by KL >= 0 besides."""
    before, labels = made(8, 3, seed)
    now = log_probabilities(before + 0.5 * made(8, 3, seed + 100)[0])
    terms = em_terms(before, now, labels)
    risen = terms.log_likelihood - log_likelihoods(before, labels).mean().item()
    assert risen == pytest.approx(terms.gain + terms.kl, abs=1e-12)
    assert risen >= terms.gain


def test_the_gradient_of_eq_6_is_that_of_finite_differences() -> None:
    log_probs, labels = made(6, 3, 4)
    q = log_posterior(made(6, 3, 5)[0], labels).exp()

    def objective(logits: Tensor) -> Tensor:
        return expectation(q, log_joint(torch.log_softmax(logits, 1), labels))

    assert torch.autograd.gradcheck(objective, log_probs.clone().requires_grad_())


def test_at_theta_old_the_clustering_term_pulls_nowhere() -> None:
    """Its gradient is that of KL at its minimum, so Eq. 6 has there the gradient of Eq. 2 alone."""
    log_probs, labels = made(10, 4, 6)
    q = log_posterior(log_probs, labels).exp()
    logits = log_probs.clone().requires_grad_()
    now = torch.log_softmax(logits, 1)
    clustering = torch.autograd.grad(expectation(q, log_posterior(now, labels)), logits, retain_graph=True)[0]
    assert clustering.abs().max() < 1e-15
    whole = torch.autograd.grad(expectation(q, log_joint(now, labels)), logits, retain_graph=True)[0]
    plain = torch.autograd.grad(log_likelihoods(now, labels).mean(), logits)[0]
    assert torch.allclose(whole, plain) and plain.abs().max() > 1e-2


def test_impossible_bits_leave_gradients_finite() -> None:
    logits = torch.tensor([[2000.0, 0.0], [0.0, 2000.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1])
    log_probs = log_probabilities(logits)
    q = log_posterior(log_probs.detach(), labels).exp()
    (gradient,) = torch.autograd.grad(expectation(q, log_joint(log_probs, labels)), logits)
    assert bool(gradient.isfinite().all())
