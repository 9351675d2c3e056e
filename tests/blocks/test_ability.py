"""Matrices of annotators against urns and integrals written out, and on counts of made annotators."""

import math

import pytest
import torch
from torch import Generator, Tensor

import scanmix.blocks.ability as module
from scanmix.blocks.ability import (
    INFINITE,
    Difference,
    ability_grid,
    fit_matrices,
    likeliest_difference,
    mistakes_of,
    price,
)
from scanmix.blocks.label_likelihood import symmetric


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def pooled_of(classes: int) -> Tensor:
    noise = torch.rand(classes, classes, generator=seeded(0), dtype=torch.float64)
    found = 0.6 * torch.eye(classes, dtype=torch.float64) + 0.4 * noise.softmax(1)
    return found / found.sum(1, keepdim=True)


def counts_of(annotators: int, classes: int, most: int = 5) -> Tensor:
    return torch.randint(most, (annotators, classes, classes), generator=seeded(1)).double()


def urn(numbers: list[int], shares: list[float], strength: float) -> float:
    """Polya's urn: the log-probability of drawing each kind so often, one draw after the other."""
    value, total = 0.0, 0
    for number, share in zip(numbers, shares, strict=True):
        for seen in range(number):
            value += math.log(share if strength == INFINITE else (seen + strength * share) / (total + strength))
            total += 1
    return value


def others(row: list[float], c: int) -> list[float]:
    return [each for k, each in enumerate(row) if k != c]


def slow_evidence(counts: Tensor, pooled: Tensor, difference: Difference) -> float:
    scale, strength = difference
    classes, total = len(pooled), 0.0
    splits = mistakes_of(pooled)
    grid = ability_grid(scale).tolist()
    prior = [math.exp(-0.5 * (b / scale) ** 2) if scale else 1.0 for b in grid]
    for own in counts.tolist():
        for c in range(classes):
            wrong = [int(each) for each in others(own[c], c)]
            total += urn(wrong, others(splits[c].tolist(), c), strength)
        value = 0.0
        for b, weight in zip(grid, prior, strict=True):
            each = 0.0
            for c in range(classes):
                share = 1 / (1 + math.exp(-(math.log(pooled[c, c] / (1 - pooled[c, c])) + b)))
                each += urn([int(own[c][c]), int(sum(others(own[c], c)))], [share, 1 - share], strength)
            value += weight / sum(prior) * math.exp(each)
        total += math.log(value)
    return total


DIFFERENCES = [Difference(scale, strength) for scale in (0.0, 0.5, 2.0) for strength in (3.0, 100.0, INFINITE)]


@pytest.mark.parametrize("classes", [2, 4])
def test_the_likeliest_difference_is_that_of_the_urns(monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    monkeypatch.setattr(module, "STEP", 0.5)
    monkeypatch.setattr(module, "SCALES", (0.0, 0.5, 2.0))
    monkeypatch.setattr(module, "STRENGTHS", (3.0, 100.0, INFINITE))
    pooled = pooled_of(classes)
    for most in (1, 3, 12):
        counts = counts_of(3, classes, most)
        penalty = 0.5 * math.log(max(float(counts.sum()), 2))
        values = {
            each: slow_evidence(counts, pooled, each) - penalty * ((each.scale > 0) + (each.strength < INFINITE))
            for each in DIFFERENCES
        }
        assert likeliest_difference(counts, pooled) == max(values, key=values.__getitem__)


@pytest.mark.parametrize("strength", [3.0, INFINITE])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_matrix_is_the_mean_over_what_is_open(scale: float, strength: float) -> None:
    pooled, counts = pooled_of(3), counts_of(2, 3)
    found = fit_matrices(counts, pooled, Difference(scale, strength))
    splits, grid = mistakes_of(pooled), ability_grid(scale).tolist()
    for a, own in enumerate(counts.tolist()):
        weights, rights = [], []
        for b in grid:
            value, row = -0.5 * (b / scale) ** 2 if scale else 0.0, []
            for c in range(3):
                right, wrong = int(own[c][c]), int(sum(others(own[c], c)))
                share = 1 / (1 + math.exp(-(math.log(pooled[c, c] / (1 - pooled[c, c])) + b)))
                value += urn([right, wrong], [share, 1 - share], strength)
                row.append(share if strength == INFINITE else (right + strength * share) / (right + wrong + strength))
            weights.append(math.exp(value))
            rights.append(row)
        for c in range(3):
            mean = sum(w * row[c] for w, row in zip(weights, rights, strict=True)) / sum(weights)
            assert float(found.transitions[a, c, c]) == pytest.approx(mean)
            for k in range(3):
                if k == c:
                    continue
                share = float(splits[c, k])
                if strength < INFINITE:
                    share = (own[c][k] + strength * share) / (sum(others(own[c], c)) + strength)
                assert float(found.transitions[a, c, k]) == pytest.approx((1 - mean) * share)


@pytest.mark.parametrize("difference", [Difference(0.5), Difference(0.5, 10.0)])
def test_the_price_grows_with_what_is_fitted_and_is_nothing_for_one_matrix(difference: Difference) -> None:
    pooled, counts = pooled_of(3), counts_of(4, 3)
    assert float(price(counts, pooled, fit_matrices(counts, pooled, Difference()))) == pytest.approx(0)
    few = float(price(counts, pooled, fit_matrices(counts, pooled, difference)))
    many = float(price(20 * counts, pooled, fit_matrices(20 * counts, pooled, difference)))
    assert 0 < few < many


def test_without_difference_all_have_the_pooled_matrix() -> None:
    pooled, counts = pooled_of(3), counts_of(4, 3)
    found = fit_matrices(counts, pooled, Difference())
    torch.testing.assert_close(found.transitions, pooled.expand(4, 3, 3))
    assert found.difference.none


@pytest.mark.parametrize("given", [Difference(1.0, 10.0), None])
def test_who_has_no_vote_has_nearly_the_pooled_matrix(given: Difference | None) -> None:
    pooled = pooled_of(3)
    nothing = torch.zeros(2, 3, 3, dtype=torch.float64)
    found = fit_matrices(nothing, pooled, given or likeliest_difference(nothing, pooled))
    assert (found.transitions - pooled).abs().max() < 0.08  # the mean over abilities, not the ability of the mean
    assert given is not None or found.difference.none


def expected_votes(*matrices: Tensor, each: int) -> Tensor:
    return (torch.stack(list(matrices)) * each).round()


def test_what_differs_is_told() -> None:
    pooled = symmetric(torch.tensor(0.2, dtype=torch.float64), 4)
    able = [symmetric(torch.tensor(rate, dtype=torch.float64), 4) for rate in (0.1, 0.2, 0.4)]
    found = likeliest_difference(expected_votes(*able, each=60), pooled)
    assert found.scale > 0 and found.strength == INFINITE
    odd = pooled.clone()
    odd[0] = torch.tensor([0.2, 0.8, 0.0, 0.0])  # takes class 0 for class 1, and knows the others
    found = likeliest_difference(expected_votes(pooled, pooled, odd, each=60), pooled)
    assert found.strength < INFINITE
    assert likeliest_difference(expected_votes(pooled, pooled, pooled, each=60), pooled).none


def test_mistakes_are_split() -> None:
    found = mistakes_of(torch.tensor([[0.5, 0.4, 0.1], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.8, 0.2], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]]))
    assert mistakes_of(torch.ones(1, 1)).tolist() == [[0.0]]


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_one_class_and_nobody(difference: Difference) -> None:
    one = fit_matrices(torch.full((2, 1, 1), 5.0, dtype=torch.float64), torch.ones(1, 1).double(), difference)
    assert one.transitions.tolist() == [[[1.0]], [[1.0]]]
    assert fit_matrices(torch.zeros(0, 3, 3).double(), pooled_of(3), difference).transitions.shape == (0, 3, 3)
