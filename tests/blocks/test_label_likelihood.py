"""The likelihood of given labels against sums written out image by image, and its maxima against searches."""

import math

import pytest
import torch
from torch import Generator, Tensor

import scanmix.blocks.label_likelihood as module
from scanmix.blocks.label_likelihood import (
    asymmetry,
    highest_rate,
    likelihoods,
    log_likelihood,
    posterior,
    shrinkage_for,
    symmetric,
    symmetric_posterior,
    symmetric_profile,
    symmetric_rate,
    transition_by_em,
    transition_of_counts,
)
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.transition import transition_matrix

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


def slow_em(v: Tensor, labels: Tensor, start: Tensor, rounds: int) -> Tensor:
    v, transition = v.double(), start.double()
    for _ in range(rounds):
        counts = 0.5 * start.double()
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
    torch.testing.assert_close(posterior(v, transition, labels), torch.tensor(rows))
    torch.testing.assert_close(likelihoods(v, transition, labels), torch.tensor(values))
    expected = sum(math.log(each) for each in values)
    assert log_likelihood(v, transition, labels) == pytest.approx(expected, rel=1e-5)


def test_an_impossible_label_leaves_what_is_seen() -> None:
    v, labels = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([2, 0])
    found = posterior(v, torch.eye(3), labels)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]))
    assert likelihoods(v, torch.eye(3), labels).tolist() == [0.0, 1.0]
    assert -200 < log_likelihood(v, torch.eye(3), labels) < -80  # log 1e-38


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_symmetric_noise(classes: int, rate: float) -> None:
    found = symmetric(torch.tensor(rate), classes)
    for c in range(classes):
        for k in range(classes):
            expected = 1.0 if classes == 1 else 1 - rate if c == k else rate / (classes - 1)
            assert float(found[c, k]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_symmetric_rate_is_the_likeliest_of_all(classes: int) -> None:
    v, _, labels = case(60, classes)
    v = (4 * torch.eye(classes)[labels] + made(60, classes)).softmax(1)
    v[:12] = v[:12].roll(1, 1)  # so that the maximum is inside
    found = symmetric_rate(self_confidence(v, labels), classes, rounds=500)
    rates = [each / 400 * highest_rate(classes) for each in range(401)]
    values = [log_likelihood(v, symmetric(torch.tensor(each), classes), labels) for each in rates]
    assert log_likelihood(v, symmetric(found, classes), labels) >= max(values) - 1e-3


def test_few_right_labels_do_not_prove_that_none_is_wrong() -> None:
    assert float(symmetric_rate(torch.ones(8), 3)) == pytest.approx(0.1)
    assert float(symmetric_rate(torch.zeros(8), 3)) == pytest.approx(2 / 3)
    assert float(symmetric_rate(torch.ones(5), 1)) == 0.0


@pytest.mark.parametrize(("count", "classes"), GRID)
def test_the_profile_is_the_likelihood_of_each_rate(count: int, classes: int) -> None:
    v, _, labels = case(count, classes)
    second = made(count, classes, seed=5).softmax(1)
    own = torch.stack([self_confidence(each, labels) for each in (v, second)])
    rates, found = symmetric_profile(own, classes)
    assert float(rates[0]) == 0 and float(rates[-1]) == pytest.approx(highest_rate(classes))
    assert bool((rates.diff() >= 0).all()) and found.shape == (2, module.STEPS + 1)
    for row, each in enumerate((v, second)):
        for place in (0, 1, 20, module.STEPS):
            expected = log_likelihood(each, symmetric(rates[place].float(), classes), labels)
            assert float(found[row, place]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("count", "classes"), GRID)
def test_the_symmetric_posterior_is_the_average_over_rates(count: int, classes: int) -> None:
    v, _, labels = case(count, classes)
    rates, weights = torch.tensor([0.0, 0.2, 0.45]) * highest_rate(classes), torch.tensor([0.1, 0.6, 0.3])
    expected = sum(
        (float(w) * posterior(v, symmetric(rate, classes), labels) for rate, w in zip(rates, weights, strict=True)),
        torch.zeros(count, classes),
    )
    torch.testing.assert_close(symmetric_posterior(v, labels, rates, weights), expected)


@pytest.mark.parametrize("shrinkage", [0.0, 0.25, 1.0])
def test_counts_become_shares_between_themselves_and_symmetry(shrinkage: float) -> None:
    counts = torch.tensor([[6.0, 2, 2], [0, 0, 0], [3, 0, 1]])
    diagonal = (0.6 + 0.25) / 2  # the second class was not seen
    even = torch.full((3, 3), (1 - diagonal) / 2).fill_diagonal_(diagonal)
    expected = (1 - shrinkage) * torch.tensor([[0.6, 0.2, 0.2], [0, 0, 0], [0.75, 0, 0.25]]) + shrinkage * even
    expected[1] = even[1]
    torch.testing.assert_close(transition_of_counts(counts, shrinkage), expected)


def test_few_right_counts_do_not_prove_that_none_is_wrong() -> None:
    found = transition_of_counts(torch.tensor([[5.0, 0], [0, 3]]), 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    assert bool((transition_of_counts(torch.zeros(4, 4), 0.5).sum(1) - 1).abs().max() < 1e-6)


@pytest.mark.parametrize(("count", "classes", "expected"), [(2000, 10, 0.5), (0, 3, 1.0), (60_000, 10, 1 / 31)])
def test_shrinkage_falls_with_the_images_for_each_entry(count: int, classes: int, expected: float) -> None:
    assert shrinkage_for(count, classes) == pytest.approx(expected)


@pytest.mark.parametrize("chunk", [7, 65536])
@pytest.mark.parametrize("rounds", [0, 1, 3, 30])
@pytest.mark.parametrize(("count", "classes"), [(30, 2), (80, 4), (40, 1)])
def test_em_is_that_written_out(
    monkeypatch: pytest.MonkeyPatch, count: int, classes: int, rounds: int, chunk: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    v, start, labels = case(count, classes)
    found = transition_by_em(v, labels, start, rounds)
    torch.testing.assert_close(found.double(), slow_em(v, labels, start, rounds), atol=2e-5, rtol=1e-4)


def test_each_round_of_em_makes_labels_likelier() -> None:
    v, start, labels = case(4000, 3)
    values = [log_likelihood(v, transition_by_em(v, labels, start, rounds), labels) for rounds in (0, 1, 2, 5, 20, 200)]
    assert values == sorted(values) and values[-1] > values[0]
    others = [made(3, 3, seed=seed).mul(3).softmax(1) for seed in range(200)]
    assert all(log_likelihood(v, each, labels) <= values[-1] + 1 for each in others)  # the start is half an image


def test_em_finds_the_matrix_that_made_the_labels() -> None:
    truth = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.0, 0.7]])
    v = made(20_000, 3).mul(3).softmax(1)
    classes = v.multinomial(1, generator=seeded(1)).squeeze(1)
    labels = truth[classes].multinomial(1, generator=seeded(2)).squeeze(1)
    found = transition_by_em(v, labels, symmetric(torch.tensor(0.5), 3), 100)
    torch.testing.assert_close(found, truth, atol=0.03, rtol=0)


def test_a_class_without_images_keeps_the_row_it_starts_from() -> None:
    v = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]).repeat(50, 1)
    start = symmetric(torch.tensor(0.2), 3)
    found = transition_by_em(v, torch.tensor([0, 1]).repeat(50), start)
    torch.testing.assert_close(found[2], start[2])


def test_thousands_of_classes() -> None:
    """A table of C x C x N would have 14 GB."""
    labels = torch.arange(600) % 2500
    v = torch.full((600, 2500), 0.1 / 2499).scatter(1, labels.unsqueeze(1), 0.9)
    found = transition_by_em(v, labels, symmetric(torch.tensor(0.1), 2500), rounds=3)
    assert found.shape == (2500, 2500) and float((found.sum(1) - 1).abs().max()) < 1e-3
    assert float(found.diagonal().min()) > 0.5


def test_asymmetry_is_what_chance_does_not_explain() -> None:
    assert asymmetry(-1.0, 10) == asymmetry(0.0, 10) == asymmetry(44.5, 10) == 0.0
    assert asymmetry(89.0, 10) == pytest.approx(0.5)
    assert asymmetry(1e9, 10) == pytest.approx(1.0)
    assert asymmetry(1.0, 1) == 1.0  # one class: both matrices are the same


def test_symmetric_noise_leaves_little_asymmetry_and_pairs_leave_much() -> None:
    v = made(3000, 5).mul(3).softmax(1)
    classes = v.multinomial(1, generator=seeded(1)).squeeze(1)
    even = symmetric(torch.tensor(0.4), 5)
    pairs = 0.6 * torch.eye(5) + 0.4 * torch.eye(5).roll(1, 1)
    shares = []
    for truth in (even, pairs):
        labels = truth[classes].multinomial(1, generator=seeded(2)).squeeze(1)
        start = symmetric(symmetric_rate(self_confidence(v, labels), 5), 5)
        general = transition_by_em(v, labels, start, 100)
        shares.append(asymmetry(log_likelihood(v, general, labels) - log_likelihood(v, start, labels), 5))
    assert shares[0] < 0.5 < 0.9 < shares[1]


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (30, 2), (50, 7)])
def test_known_pairs_count_in_full_beside_what_is_expected(count: int, classes: int) -> None:
    """As images whose v is certain; but those count from the first round on, whatever the matrix says."""
    v, start, labels = case(count, classes)
    known = torch.randint(0, 9, (classes, classes), generator=seeded(3)).double()
    transition = start.double()
    for _ in range(5):
        counts = 0.5 * start.double() + known
        for row, given in zip(v.double(), labels.tolist(), strict=True):
            joint = row * transition[:, given]
            counts[:, given] += joint / joint.sum()
        transition = counts / counts.sum(1, keepdim=True)
    found = transition_by_em(v, labels, start, 5, known)
    torch.testing.assert_close(found.double(), transition, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(transition_by_em(v, labels, start, 5, 0 * known), transition_by_em(v, labels, start, 5))


def test_pairs_alone_are_the_matrix_and_many_of_them_pin_a_row() -> None:
    v, start, labels = case(50, 3)
    known = torch.tensor([[30, 10, 0], [0, 40, 0], [5, 5, 10]]).double()
    none = transition_by_em(v[:0], labels[:0], start, 3, known)
    torch.testing.assert_close(none.double(), transition_matrix(known + 0.5 * start.double()))
    pinned = transition_by_em(v, labels, start, 40, 1000 * known)
    torch.testing.assert_close(pinned.double(), transition_matrix(known), atol=2e-3, rtol=0)


def test_labels_known_to_be_right_or_wrong_count_in_the_symmetric_rate() -> None:
    sure = torch.full((40,), 0.7)
    plain, right, wrong = (
        float(symmetric_rate(sure, 4, known=pair)) for pair in ((0.0, 0.0), (50.0, 0.0), (0.0, 50.0))
    )
    assert right < plain < wrong
    assert float(symmetric_rate(torch.zeros(0), 4, known=(30.0, 10.0))) == pytest.approx(0.25)
    # The likeliest rate of all labels together, by search.
    rates = torch.linspace(1e-4, highest_rate(4), 20_000, dtype=torch.float64)
    likely = 40 * (0.7 * (1 - rates) + 0.3 * rates / 3).log() + 50 * (rates / 3).log()
    assert float(symmetric_rate(sure, 4, rounds=500, known=(0.0, 50.0))) == pytest.approx(
        float(rates[likely.argmax()]), abs=1e-3
    )
