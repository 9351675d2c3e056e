"""The noise model against sums written out image by image, and on made mixtures whose noise is known."""

import math
from functools import partial

import pytest
import torch
from torch import Generator, Tensor

import scanmix.blocks.noise_model as module
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.noise_model import (
    EstimateTransition,
    NoiseModel,
    expected_counts,
    fit,
    likelihoods,
    mean_log_likelihood,
    posterior,
    shrinkage_for,
    symmetric,
    transition_by_em,
    transition_from_confident,
    transition_of_counts,
    transition_symmetric,
)

ESTIMATES = [transition_from_confident, transition_by_em, transition_symmetric]
GRID = [(1, 1), (1, 3), (2, 2), (30, 2), (50, 7), (40, 1)]


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def case(count: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Any v, T and labels."""
    v, transition = made(count, classes).softmax(1), made(classes, classes, seed=1).softmax(1)
    return v, transition, torch.randint(classes, (count,), generator=seeded(2))


def slow_posterior(v: Tensor, transition: Tensor, labels: Tensor) -> tuple[list[float], list[list[float]]]:
    values, rows = [], []
    for i, y in enumerate(labels.tolist()):
        joint = [float(v[i, c]) * float(transition[c, y]) for c in range(v.shape[1])]
        values.append(sum(joint))
        rows.append([each / sum(joint) for each in joint])
    return values, rows


def slow_em(v: Tensor, labels: Tensor, rounds: int) -> Tensor:
    v = v.double()
    classes = v.shape[1]
    transition = torch.full((classes, classes), 0.5 / max(classes - 1, 1), dtype=torch.float64)
    transition.fill_diagonal_(0.5 if classes > 1 else 1.0)
    for _ in range(rounds):
        counts = torch.zeros_like(transition)
        for i, y in enumerate(labels.tolist()):
            counts[:, y] += v[i] * transition[:, y] / (v[i] * transition[:, y]).sum()
        transition = counts / counts.sum(1, keepdim=True)
    return transition


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize(("count", "classes"), GRID)
def test_the_posterior_is_that_of_bayes(monkeypatch: pytest.MonkeyPatch, count: int, classes: int, chunk: int) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    v, transition, labels = case(count, classes)
    values, rows = slow_posterior(v, transition, labels)
    found = posterior(v, transition, labels)
    torch.testing.assert_close(found, torch.tensor(rows))
    torch.testing.assert_close(likelihoods(v, transition, labels), torch.tensor(values))
    expected = sum(math.log(each) for each in values) / count
    assert mean_log_likelihood(v, transition, labels) == pytest.approx(expected, rel=1e-5)
    assert self_confidence(found, labels).tolist() == [float(found[i, y]) for i, y in enumerate(labels.tolist())]


def test_an_impossible_label_leaves_what_neighbors_say() -> None:
    v, labels = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([2, 0])
    found = posterior(v, torch.eye(3), labels)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]))
    assert likelihoods(v, torch.eye(3), labels).tolist() == [0.0, 1.0]
    assert -100 < mean_log_likelihood(v, torch.eye(3), labels) < -40  # half of log 1e-38


def test_even_neighbors_say_nothing_and_a_certain_label_is_believed() -> None:
    labels = torch.tensor([0, 1, 2])
    even = torch.full((3, 3), 1 / 3)
    torch.testing.assert_close(posterior(even, torch.eye(3), labels), torch.eye(3))
    torch.testing.assert_close(posterior(even, even, labels), even)


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("diagonal", [0.0, 0.3, 1.0])
def test_symmetric_noise(classes: int, diagonal: float) -> None:
    found = symmetric(torch.tensor(diagonal), classes)
    for c in range(classes):
        for k in range(classes):
            expected = 1.0 if classes == 1 else diagonal if c == k else (1 - diagonal) / (classes - 1)
            assert float(found[c, k]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 0.25, 1.0])
def test_counts_become_shares_between_themselves_and_symmetry(shrinkage: float) -> None:
    counts = torch.tensor([[6.0, 2, 2], [0, 0, 0], [3, 0, 1]])
    diagonal = (0.6 + 0.25) / 2  # the second class was not seen
    even = torch.full((3, 3), (1 - diagonal) / 2).fill_diagonal_(diagonal)
    expected = (1 - shrinkage) * torch.tensor([[0.6, 0.2, 0.2], [0, 0, 0], [0.75, 0, 0.25]]) + shrinkage * even
    expected[1] = even[1]
    torch.testing.assert_close(transition_of_counts(counts, shrinkage), expected)


def test_few_right_labels_do_not_prove_that_none_is_wrong() -> None:
    found = transition_of_counts(torch.tensor([[5.0, 0], [0, 3]]), 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    assert bool((transition_of_counts(torch.zeros(4, 4), 0.5).sum(1) - 1).abs().max() < 1e-6)


@pytest.mark.parametrize(("count", "classes", "expected"), [(2000, 10, 0.5), (0, 3, 1.0), (60_000, 10, 1 / 31)])
def test_shrinkage_falls_with_the_images_for_each_entry(count: int, classes: int, expected: float) -> None:
    assert shrinkage_for(count, classes) == pytest.approx(expected)


@pytest.mark.parametrize("chunk", [7, 65536])
@pytest.mark.parametrize("rounds", [1, 3, 30])
@pytest.mark.parametrize(("count", "classes"), [(30, 2), (80, 4), (40, 1)])
def test_em_is_that_written_out(
    monkeypatch: pytest.MonkeyPatch, count: int, classes: int, rounds: int, chunk: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    v, _, labels = case(count, classes)
    found = transition_by_em(v, labels, rounds)
    torch.testing.assert_close(found.double(), slow_em(v, labels, rounds), atol=2e-5, rtol=1e-4)


def test_the_e_step_sums_posteriors() -> None:
    v, transition, labels = case(60, 3)
    found, rows = expected_counts(v, transition, labels), posterior(v, transition, labels)
    for k in range(3):
        torch.testing.assert_close(found[:, k], rows[labels == k].sum(0))
    assert float(found.sum()) == pytest.approx(60, rel=1e-5)


def test_each_round_of_em_makes_labels_likelier_and_the_end_is_the_maximum() -> None:
    v, _, labels = case(400, 3)
    values = [mean_log_likelihood(v, transition_by_em(v, labels, rounds), labels) for rounds in (1, 2, 5, 20, 300)]
    assert values == sorted(values) and values[-1] > values[0]
    others = [made(3, 3, seed=seed).mul(3).softmax(1) for seed in range(200)]
    assert all(mean_log_likelihood(v, each, labels) <= values[-1] + 1e-6 for each in others)


@pytest.mark.parametrize("shrinkage", [0.0, 0.4])
def test_em_finds_the_matrix_that_made_the_labels(shrinkage: float) -> None:
    truth = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.0, 0.7]])
    v = made(20_000, 3).mul(3).softmax(1)
    classes = v.multinomial(1, generator=seeded(1)).squeeze(1)
    labels = truth[classes].multinomial(1, generator=seeded(2)).squeeze(1)
    expected = torch.lerp(truth, symmetric(truth.diagonal().mean(), 3), shrinkage)
    found = transition_by_em(v, labels, 100, shrinkage)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def slow_confident(v: Tensor, labels: Tensor, share: float) -> Tensor:
    """Counts of the given labels among the most confident images of each predicted class."""
    count, classes = v.shape
    counts = torch.zeros(classes, classes)
    for c in range(classes):
        of_class = [i for i in range(count) if int(v[i].argmax()) == c]
        of_class.sort(key=lambda i: (-float(v[i].max()), i))
        for i in of_class[: max(5, int(share * len(of_class)))]:
            counts[c, labels[i]] += 1
    return transition_of_counts(counts, 1 / (1 + count / (20 * classes**2)))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("count", "classes"), [*GRID, (300, 4)])
def test_the_confident_images_are_the_top_of_each_predicted_class(count: int, classes: int, share: float) -> None:
    v, _, labels = case(count, classes)
    v = (v * 50).round() / 50  # many ties: the first image comes first
    torch.testing.assert_close(transition_from_confident(v, labels, share), slow_confident(v, labels, share))


def test_a_class_that_is_never_predicted_has_the_symmetric_row() -> None:
    v = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]).repeat(50, 1)
    found = transition_from_confident(v, torch.tensor([0, 1]).repeat(50))
    assert float(found[2, 2]) > 0.9 and float(found[2, 0]) == pytest.approx(float(found[2, 1]))


def mixture(noise: Tensor, seed: int, count: int = 1500, apart: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbors, given labels and classes of a mixture of Gaussians in 8 dimensions, labels by the rows of `noise`."""
    classes = torch.arange(count) % len(noise)
    features = made(count, 8, seed=seed) + apart * torch.eye(8)[classes]
    labels = noise[classes].multinomial(1, generator=seeded(seed + 1)).squeeze(1)
    return nearest_neighbors(features, 10), labels, classes


def pairs(rate: float, classes: int) -> Tensor:
    """Each class is taken for the next at this rate."""
    return torch.eye(classes) * (1 - rate) + rate * torch.eye(classes).roll(1, 1)


NOISE = {
    "symmetric 30 %": symmetric(torch.tensor(0.7), 5),
    "symmetric 70 %": symmetric(torch.tensor(0.3), 5),
    "asymmetric 30 %": pairs(0.3, 5),
}


@pytest.mark.parametrize("estimate", [transition_from_confident, transition_by_em])
@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("seed", [0, 10])
def test_the_rate_and_p_clean_of_a_mixture(name: str, seed: int, estimate: EstimateTransition) -> None:
    neighbors, labels, classes = mixture(NOISE[name], seed)
    found = fit(neighbors, labels, 5, seeded(0), estimate)
    right = (labels == classes).float()
    wrong = 1 - float(right.mean())
    assert abs(found.estimated_rate - wrong) < 0.04
    assert float((found.p_clean - right).square().mean()) < wrong * (1 - wrong)
    assert float((found.posterior.argmax(1) == classes).float().mean()) > float(right.mean())


@pytest.mark.parametrize("name", ["symmetric 30 %", "symmetric 70 %"])
@pytest.mark.parametrize("seed", [0, 10])
def test_one_free_number_finds_symmetric_noise(name: str, seed: int) -> None:
    neighbors, labels, classes = mixture(NOISE[name], seed)
    found = fit(neighbors, labels, 5, seeded(0), transition_symmetric, max_rounds=1)
    assert abs(found.estimated_rate - float((labels != classes).float().mean())) < 0.04


@pytest.mark.parametrize("classes", [2, 4])
def test_the_symmetric_matrix_is_the_likeliest_of_all(classes: int) -> None:
    v, _, labels = case(60, classes)
    found = transition_symmetric(v, labels, rounds=500)
    values = [mean_log_likelihood(v, symmetric(torch.tensor(each / 400), classes), labels) for each in range(401)]
    assert mean_log_likelihood(v, found, labels) >= max(values) - 1e-5
    assert torch.equal(found, symmetric(found[0, 0], classes))


def test_the_temperature_is_the_one_with_which_labels_are_likeliest() -> None:
    neighbors, labels, _ = mixture(NOISE["symmetric 30 %"], 0)
    found = fit(neighbors, labels, 5, seeded(0), max_rounds=1)
    assert found.rounds == 1 and [each.temperature for each in found.tried] == list(module.TEMPERATURES)
    for each in found.tried:
        alone = fit(neighbors, labels, 5, seeded(0), temperatures=[each.temperature], max_rounds=1)
        assert (alone.temperature, alone.log_likelihood) == (each.temperature, each.log_likelihood)
        assert alone.estimated_rate == each.estimated_rate
    best = max(found.tried, key=lambda each: each.log_likelihood)
    assert (found.temperature, found.log_likelihood, found.estimated_rate) == (*best[:2], best.estimated_rate)
    assert min(each.log_likelihood for each in found.tried) < found.log_likelihood


def test_what_is_returned_belongs_together() -> None:
    neighbors, labels, _ = mixture(NOISE["asymmetric 30 %"], 0)
    found = fit(neighbors, labels, 5, seeded(0), partial(transition_by_em, rounds=5, shrinkage=0.1))
    assert torch.equal(found.transition, transition_by_em(found.v, labels, 5, 0.1))
    assert torch.equal(found.posterior, posterior(found.v, found.transition, labels))
    assert torch.equal(found.p_clean, self_confidence(found.posterior, labels))
    assert found.log_likelihood == mean_log_likelihood(found.v, found.transition, labels)
    assert found.estimated_rate == pytest.approx(1 - float(found.p_clean.mean()))


def test_rounds_go_on_while_the_likelihood_rises() -> None:
    neighbors, labels, _ = mixture(NOISE["symmetric 70 %"], 0, apart=2.5)
    models = [fit(neighbors, labels, 5, seeded(0), max_rounds=most) for most in (1, 2, 3, 10)]
    values = [each.log_likelihood for each in models]
    assert values == sorted(values) and 1 < models[-1].rounds < 10
    assert models[0].rounds == 1 and values[1] > values[0]
    again = fit(neighbors, labels, 5, seeded(0), max_rounds=models[-1].rounds)
    assert torch.equal(again.posterior, models[-1].posterior)


def test_labels_in_other_order_give_the_same_model() -> None:
    """Classes renamed, and images shuffled: the probes differ, so only nearly."""
    neighbors, labels, _ = mixture(NOISE["asymmetric 30 %"], 0, count=600)
    first = fit(neighbors, labels, 5, seeded(0), max_rounds=1)
    named = torch.tensor([3, 0, 4, 1, 2])
    second = fit(neighbors, named[labels], 5, seeded(0), max_rounds=1)
    torch.testing.assert_close(second.posterior[:, named], first.posterior, atol=1e-4, rtol=1e-3)
    order = torch.randperm(600, generator=seeded(1))
    third = fit(order.argsort()[neighbors[order]], labels[order], 5, seeded(0), max_rounds=1)
    assert float((third.p_clean - first.p_clean[order]).abs().mean()) < 0.02


def test_a_given_marginal_is_kept() -> None:
    neighbors, labels, _ = mixture(NOISE["symmetric 30 %"], 0)
    marginal = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])
    found = fit(neighbors, labels, 5, seeded(0), marginal=marginal)
    torch.testing.assert_close(found.v.mean(0), marginal, atol=0.02, rtol=0)
    assert float(found.posterior[:, 4].max()) == 0 and bool(found.posterior.isfinite().all())


def test_right_labels_of_separate_classes_are_right() -> None:
    neighbors, labels, _ = mixture(torch.eye(5), 0, apart=8.0)
    assert fit(neighbors, labels, 5, seeded(0)).estimated_rate < 0.02


def sound(found: NoiseModel, count: int, classes: int) -> bool:
    rows = [found.posterior.sum(1), found.v.sum(1), found.transition.sum(1)]
    close = all(float((each - 1).abs().max()) < 1e-4 for each in rows)
    finite = all(bool(each.isfinite().all()) for each in (found.posterior, found.v, found.transition, found.p_clean))
    shapes = found.posterior.shape == found.v.shape == (count, classes) and found.transition.shape == (classes, classes)
    return close and finite and shapes and math.isfinite(found.log_likelihood) and 0 <= found.estimated_rate <= 1 + 1e-6


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize(("count", "classes"), [(1, 1), (1, 3), (2, 1), (2, 2), (2, 5), (12, 1), (12, 4), (40, 90)])
def test_few_images_and_many_classes(count: int, classes: int, estimate: EstimateTransition) -> None:
    """One class, classes without labels, more classes than images, all others as neighbors."""
    others = torch.arange(count).repeat(count, 1)[~torch.eye(count, dtype=torch.bool)].view(count, count - 1)
    labels = torch.randint(max(classes - 1, 1), (count,), generator=seeded(0))
    assert sound(fit(others, labels, classes, seeded(0), estimate), count, classes)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_duplicated_points_and_labels_that_are_all_equal(estimate: EstimateTransition) -> None:
    points = made(5, 4).repeat(20, 1)
    neighbors = nearest_neighbors(points, 10)
    labels = torch.arange(100) % 5
    found = fit(neighbors, labels, 5, seeded(0), estimate)
    assert sound(found, 100, 5) and found.estimated_rate < 0.1
    assert sound(fit(neighbors, torch.zeros(100, dtype=torch.int64), 3, seeded(0), estimate), 100, 3)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_thousands_of_classes(estimate: EstimateTransition) -> None:
    """A table of C x C x N would have 14 GB."""
    labels = torch.arange(600) % 2500
    v = torch.full((600, 2500), 0.1 / 2499).scatter(1, labels.unsqueeze(1), 0.9)
    found = estimate(v, labels)
    assert found.shape == (2500, 2500) and float((found.sum(1) - 1).abs().max()) < 1e-3
    assert float(found.diagonal()[:600].min()) > 0.5  # the other classes have no label
