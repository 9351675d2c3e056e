"""Annotators against sums written out vote by vote, Dawid and Skene's EM as published, and made annotators."""

import math

import pytest
import torch
from torch import Generator, Tensor

import scanmix.blocks.annotators as module
from scanmix.blocks.ability import Difference, fit_matrices
from scanmix.blocks.annotators import (
    APART,
    Annotators,
    fit_annotators,
    fit_with_neighbors,
    list_votes,
    majority,
    vote_counts,
    with_names,
)
from scanmix.blocks.label_likelihood import shrinkage_for, symmetric, transition_of_counts
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.data.examples import NO_VOTE

Rows = list[list[float]]


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def drawn(truth: Tensor, transitions: Tensor, seen: float = 1.0, seed: int = 0) -> Tensor:
    """Votes of annotators with these matrices, each of whom saw this share of the images."""
    generator = seeded(seed)
    columns = [torch.multinomial(each[truth], 1, generator=generator).squeeze(1) for each in transitions]
    votes = torch.stack(columns, 1)
    return votes.masked_fill(torch.rand(votes.shape, generator=generator) >= seen, NO_VOTE)


def people(*diagonals: float, classes: int) -> Tensor:
    return torch.stack([symmetric(torch.tensor(1 - each, dtype=torch.float64), classes) for each in diagonals])


def case(count: int, annotators: int, classes: int, seed: int = 0) -> Tensor:
    """Any votes, a third of them missing."""
    votes = torch.randint(classes, (count, annotators), generator=seeded(seed))
    return votes.masked_fill(torch.rand(votes.shape, generator=seeded(seed + 1)) < 0.3, NO_VOTE)


def slow_posterior(votes: Tensor, transitions: Tensor, prior: Tensor) -> tuple[Rows, float]:
    rows, total = [], 0.0
    for i, given in enumerate(votes.tolist()):
        joint = prior[i].tolist()
        for a, label in enumerate(given):
            if label != NO_VOTE:
                joint = [each * float(transitions[a, c, label]) for c, each in enumerate(joint)]
        rows.append([each / sum(joint) for each in joint])
        total += math.log(sum(joint)) / len(votes)
    return rows, total


def slow_counts(votes: Tensor, posterior: Tensor) -> Tensor:
    classes = posterior.shape[1]
    counts = torch.zeros(votes.shape[1], classes, classes, dtype=torch.float64)
    for i, given in enumerate(votes.tolist()):
        for a, label in enumerate(given):
            for c in range(classes if label != NO_VOTE else 0):
                counts[a, c, label] += posterior[i, c]
    return counts


def slow_fit(votes: Tensor, classes: int, prior: Tensor | None, steps: list[Difference]) -> Tensor:
    """The same EM, vote by vote, with a given difference of annotators in each step."""
    count = len(votes)
    pooled = symmetric(torch.tensor(0.5 - 0.5 / classes, dtype=torch.float64), classes)
    transitions = torch.stack([pooled] * votes.shape[1])
    before = torch.full((count, classes), 1 / classes, dtype=torch.float64) if prior is None else prior.double()
    posterior = torch.tensor(slow_posterior(votes, transitions, before)[0], dtype=torch.float64)
    shrinkage = shrinkage_for(int((votes != NO_VOTE).sum()), classes)
    for each in steps:
        counts = slow_counts(votes, posterior)
        pooled = with_names(transition_of_counts(counts.sum(0), shrinkage))
        transitions = fit_matrices(counts, pooled, each).transitions
        if prior is None:
            before = ((posterior.sum(0) + 1) / (count + classes)).expand(count, -1)
        posterior = torch.tensor(slow_posterior(votes, transitions, before)[0], dtype=torch.float64)
    return posterior


def dawid_skene(votes: Tensor, classes: int, rounds: int = 15) -> Tensor:
    """The classes that Dawid and Skene find: begun with shares of votes, nothing drawn together."""
    posterior = vote_counts(votes, classes).double()
    posterior = posterior / posterior.sum(1, keepdim=True)
    for _ in range(rounds):
        counts = slow_counts(votes, posterior)
        transitions = (counts / counts.sum(2, keepdim=True).clamp(min=1e-300)).clamp(min=1e-300)
        prior = posterior.mean(0).clamp(min=1e-300).expand(len(votes), -1)
        posterior = torch.tensor(slow_posterior(votes, transitions, prior)[0], dtype=torch.float64)
    return posterior.argmax(1)


def right(found: Tensor, truth: Tensor) -> float:
    return float((found == truth).double().mean())


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize(("count", "annotators", "classes"), [(1, 3, 2), (2, 2, 3), (10, 5, 6), (60, 4, 4)])
@pytest.mark.parametrize("with_prior", [False, True])
def test_em_is_that_of_the_sums(
    monkeypatch: pytest.MonkeyPatch, count: int, annotators: int, classes: int, with_prior: bool, chunk: int
) -> None:
    difference = Difference(1.0, 10.0)
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "likeliest_difference", lambda *_: difference)
    votes = case(count, annotators, classes)
    if count > 10:  # annotators who differ much
        votes = drawn(torch.arange(count) % classes, people(0.98, 0.9, 0.2, 0.2, classes=classes))
    votes[0, :2] = 0  # at least one image has two votes
    prior = torch.rand(count, classes, generator=seeded(5)).softmax(1) if with_prior else None
    found = fit_annotators(votes, classes, prior, rounds=2)
    steps = [Difference()] * 2 + ([Difference()] * 4 if found.difference.none else [APART] * 2 + [difference] * 2)
    torch.testing.assert_close(found.posterior, slow_fit(votes, classes, prior, steps))
    torch.testing.assert_close(found.consensus_prob, found.posterior.amax(1))
    if prior is not None:
        _, value = slow_posterior(votes, found.transitions, prior.double())
        assert found.log_likelihood == pytest.approx(value)
    assert found.difference.none == (count < 50)


@pytest.mark.parametrize(("count", "annotators", "classes"), [(1, 1, 1), (3, 2, 2), (20, 6, 4)])
def test_votes_are_counted(count: int, annotators: int, classes: int) -> None:
    votes = case(count, annotators, classes)
    table, expected = votes.tolist(), torch.zeros(count, classes, dtype=torch.int64)
    for i, given in enumerate(table):
        for label in given:
            if label != NO_VOTE:
                expected[i, label] += 1
    assert torch.equal(vote_counts(votes, classes), expected)
    best = [row.index(max(row)) for row in expected.tolist()]  # the first of equal ones
    assert majority(votes, classes).tolist() == best
    cast = list_votes(votes)
    assert [table[i][a] for i, a in zip(cast.images.tolist(), cast.annotators.tolist(), strict=True)] == (
        cast.labels.tolist()
    )
    found = fit_annotators(votes, classes)
    assert found.counts.tolist() == [(votes[:, a] >= 0).sum().item() for a in range(annotators)]
    for i, row in enumerate(expected.tolist()):
        label = int(found.consensus[i])
        share = row[label] / sum(row) if sum(row) else math.nan
        assert float(found.agreement[i]) == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_annotator_is_found(seed: int) -> None:
    truth = torch.randint(4, (600,), generator=seeded(seed + 100))
    quality = (0.85, 0.85, 0.45, 0.75)
    found = fit_annotators(drawn(truth, people(*quality, classes=4), 0.8, seed), 4)
    assert not found.difference.none
    assert int(found.quality.argmin()) == 2
    expected, error = torch.tensor(quality, dtype=torch.float64), found.quality_error
    assert (found.quality - expected).abs().max() < 0.07
    assert (found.quality[2] + 3 * error[2]) < (found.quality[[0, 1, 3]] - 3 * error[[0, 1, 3]]).min()


@pytest.mark.parametrize("seed", range(3))
def test_one_good_annotator_among_three_is_seen(seed: int) -> None:
    """The two others outvote the good one, so counting finds only the usual four of five."""
    truth = torch.randint(3, (600,), generator=seeded(seed + 20))
    found = fit_annotators(drawn(truth, people(0.98, 0.53, 0.53, classes=3), 1.0, seed), 3)
    assert int(found.quality.argmax()) == 0
    assert right(found.consensus, truth) > 0.92


@pytest.mark.parametrize("seed", range(3))
def test_different_annotators_are_weighed_better_than_by_counting(seed: int) -> None:
    truth = torch.randint(5, (500,), generator=seeded(seed + 50))
    votes = drawn(truth, people(0.95, 0.5, 0.5, 0.4, 0.4, classes=5), 1.0, seed)
    found = right(fit_annotators(votes, 5).consensus, truth)
    assert found > right(majority(votes, 5), truth) + 0.05
    assert found > right(dawid_skene(votes, 5), truth) - 0.01


@pytest.mark.parametrize("seed", range(5))
def test_columns_that_are_no_persons_get_one_matrix(seed: int) -> None:
    """Each image is shown to 3 of 30 people of all qualities, and the column says nothing about who they were."""
    truth = torch.randint(4, (800,), generator=seeded(seed + 200))
    crowd = people(*[0.5 + 0.015 * i for i in range(30)], classes=4)
    everyone = drawn(truth, crowd, 1.0, seed)
    chosen = torch.rand(800, 30, generator=seeded(seed)).argsort(1)[:, :3]
    votes = everyone.gather(1, chosen)
    found = fit_annotators(votes, 4)
    assert found.difference.none
    torch.testing.assert_close(found.transitions, found.pooled.expand(3, -1, -1))
    assert right(found.consensus, truth) >= right(dawid_skene(votes, 4), truth) - 0.01
    assert float(found.quality[0]) == pytest.approx(right(votes[:, 0], truth), abs=0.05)


def test_an_annotator_with_few_votes_is_like_the_others() -> None:
    truth = torch.randint(3, (400,), generator=seeded(3))
    votes = drawn(truth, people(0.9, 0.6, 0.8, 0.8, classes=3))
    votes[2:, 3] = NO_VOTE
    votes[:2, 3] = (truth[:2] + 1) % 3  # two votes, both wrong
    found = fit_annotators(votes, 3)
    assert not found.difference.none
    assert 0.3 < float(found.quality[3]) < 0.85
    assert float(found.quality_error[3]) > 2 * float(found.quality_error[0])


def clusters(seed: int) -> tuple[Tensor, Tensor]:
    truth = torch.randint(4, (400,), generator=seeded(seed))
    features = torch.eye(4)[truth] + 0.25 * torch.randn(400, 4, generator=seeded(seed + 1))
    return nearest_neighbors(features, 10), truth


@pytest.mark.parametrize("seed", range(3))
def test_neighbors_help_where_they_are_right(seed: int) -> None:
    neighbors, truth = clusters(seed)
    votes = drawn(truth, people(0.5, 0.6, classes=4), 1.0, seed)
    alone, found = fit_annotators(votes, 4), fit_with_neighbors(neighbors, votes, 4, seeded(0))
    assert right(found.consensus, truth) > right(alone.consensus, truth) + 0.1
    assert found.temperature is not None and found.temperature > 0
    assert found.log_likelihood > alone.log_likelihood


@pytest.mark.parametrize("seed", range(3))
def test_neighbors_that_know_nothing_are_not_asked(seed: int) -> None:
    truth = torch.randint(4, (400,), generator=seeded(seed))
    votes = drawn(truth, people(0.7, 0.7, 0.7, classes=4), 1.0, seed)
    random = nearest_neighbors(torch.randn(400, 8, generator=seeded(9)), 10)
    alone, found = fit_annotators(votes, 4), fit_with_neighbors(random, votes, 4, seeded(0))
    assert found.temperature is not None and found.temperature <= 0.25
    assert right(found.consensus, truth) > right(alone.consensus, truth) - 0.02


def check(found: Annotators, count: int, annotators: int, classes: int) -> None:
    assert found.posterior.shape == (count, classes)
    assert found.transitions.shape == (annotators, classes, classes)
    torch.testing.assert_close(found.posterior.sum(1), torch.ones(count, dtype=torch.float64))
    torch.testing.assert_close(found.transitions.sum(2), torch.ones(annotators, classes, dtype=torch.float64))
    assert found.quality.isfinite().all() and (found.quality_error >= 0).all()


@pytest.mark.parametrize(("count", "annotators", "classes"), [(1, 1, 1), (1, 2, 1), (2, 1, 2), (2, 3, 5), (3, 0, 2)])
def test_small_cases(count: int, annotators: int, classes: int) -> None:
    check(fit_annotators(case(count, annotators, classes), classes), count, annotators, classes)


def test_images_and_annotators_without_votes() -> None:
    votes = torch.tensor([[0, 0, -1], [1, 1, -1], [-1, -1, -1], [0, 0, -1]])
    found = fit_annotators(votes, 3)  # nobody votes for class 2 either
    check(found, 4, 3, 3)
    assert found.consensus[[0, 1, 3]].tolist() == [0, 1, 0]
    assert found.counts.tolist() == [3, 3, 0]
    assert found.agreement.isnan().tolist() == [False, False, True, False]
    torch.testing.assert_close(found.transitions[2], found.pooled)


def test_one_vote_an_image_is_the_consensus() -> None:
    votes = torch.tensor([[0, -1], [-1, 1], [2, -1], [-1, 1]])
    found = fit_annotators(votes, 3)
    assert found.consensus.tolist() == [0, 1, 2, 1]
    near = torch.tensor([[1], [0], [3], [2]])
    assert torch.equal(fit_with_neighbors(near, votes, 3, seeded(0)).posterior, found.posterior)


@pytest.mark.parametrize("count", [6, 40])
def test_two_classes_are_told_apart(count: int) -> None:
    """A start at a half would know nothing of two classes."""
    truth = torch.arange(count) % 2
    votes = torch.stack([truth, truth], 1)
    votes[0, 1] = 1 - truth[0]
    found = fit_annotators(votes, 2)
    assert found.consensus[1:].tolist() == truth[1:].tolist()
    assert float(found.consensus_prob[1:].min()) > 0.9
    near = nearest_neighbors(torch.randn(count, 4, generator=seeded(0)), 5)
    assert fit_with_neighbors(near, votes, 2, seeded(0)).consensus[1:].tolist() == truth[1:].tolist()


def test_a_prior_that_is_always_wrong_exchanges_no_names() -> None:
    truth = torch.arange(40) % 2
    votes = truth.unsqueeze(1).expand(-1, 3)
    prior = torch.eye(2)[1 - truth] * 0.9998 + 0.0001
    assert float(fit_annotators(votes, 2, prior).pooled.diagonal().min()) >= 0.5
    near = torch.stack([(torch.arange(40) + step) % 40 for step in (1, 39)], 1)  # neighbors are of the other class
    assert fit_with_neighbors(near, votes, 2, seeded(0)).consensus.tolist() == truth.tolist()


def test_names_of_classes_stay() -> None:
    found = with_names(torch.tensor([[0.2, 0.8, 0.0], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]))
    assert with_names(torch.ones(1, 1)).tolist() == [[1.0]]


def test_ties_go_to_the_first_class() -> None:
    votes = torch.tensor([[0, 1], [1, 0], [2, 2]])
    assert majority(votes, 3).tolist() == [0, 0, 2]
    assert fit_annotators(votes, 3).consensus.tolist() == [0, 0, 2]
