"""Which evidence an audit listens to."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.audit import Evidence, score_labels
from scanmix.audit.evidence import neighborhood
from scanmix.audit.explain import explain, memorized, readings
from scanmix.blocks.label_quality import mean_likelihood, with_history
from scanmix.model.dynamics import Snapshot

COUNT, CLASSES = 900, 3


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def points(of: Tensor, seed: int, apart: float = 4.0) -> Tensor:
    return torch.randn(COUNT, 6, generator=seeded(seed)) + apart * torch.eye(6)[of]


def made(rate: float = 0.4) -> tuple[Evidence, Tensor]:
    """A network that has memorized all labels: its features are those of the given label. Pixels are those of truth."""
    truth = torch.arange(COUNT) % CLASSES
    other = (truth + torch.randint(1, CLASSES, (COUNT,), generator=seeded(4))) % CLASSES
    labels = torch.where(torch.rand(COUNT, generator=seeded(0)) < rate, other, truth)
    probs = 0.9 * F.one_hot(labels, CLASSES) + 0.1 / CLASSES
    late = torch.where(labels == truth, 0.3, 2.0) + 0.5 * torch.rand(COUNT, generator=seeded(3))
    evidence = Evidence(
        labels=labels,
        probs=probs,
        predictions=labels.unsqueeze(0),
        class_names=("a", "b", "c"),
        ids=tuple(map(str, range(COUNT))),
        true_labels=truth,
        learned_all=True,
        neighbors=neighborhood(points(labels, 1, apart=3.0))[0],
        image_neighbors=neighborhood(points(truth, 2, apart=3.0))[0],
        snapshots=[Snapshot(1, late.expand(1, -1).half(), labels.expand(1, -1).int())],
    )
    return evidence, labels != truth


def brier(p_clean: Tensor, wrong: Tensor) -> float:
    return float((p_clean - (~wrong).float()).square().mean())


def test_features_of_a_network_that_memorized_its_labels_do_not_count() -> None:
    evidence, wrong = made()
    share = float(wrong.float().mean())
    found = explain(evidence)
    assert abs(found.rate.value - share) < 0.05 and found.rate.low <= share <= found.rate.high
    blind = explain(dataclasses.replace(evidence, learned_all=False))
    assert blind.rate.value < share - 0.2  # what would be believed otherwise


def test_a_network_that_learned_no_wrong_label_is_heard() -> None:
    evidence, wrong = made()
    truth = evidence.true_labels
    assert truth is not None
    honest = dataclasses.replace(
        evidence,
        predictions=truth.unsqueeze(0),
        neighbors=neighborhood(points(truth, 1))[0],
        image_neighbors=neighborhood(torch.randn(COUNT, 6, generator=seeded(5)))[0],
    )
    assert not memorized(honest, explain(honest)) and brier(explain(honest).p_clean, wrong) < 0.03


def test_history_is_a_second_witness() -> None:
    evidence, wrong = made()
    heard, deaf = explain(evidence), explain(dataclasses.replace(evidence, snapshots=()))
    assert brier(heard.p_clean, wrong) < 0.5 * brier(deaf.p_clean, wrong)
    torch.testing.assert_close(heard.posterior.sum(1), torch.ones(COUNT))
    torch.testing.assert_close(heard.posterior.gather(1, evidence.labels.unsqueeze(1)).squeeze(1), heard.p_clean)


def test_bayes_rule_for_history_written_out() -> None:
    p_clean, likelihood = torch.tensor([0.9, 0.8, 0.6, 0.3, 0.2, 0.4]), torch.tensor([0.9, 0.7, 0.8, 0.2, 0.1, 0.3])
    x, p = torch.logit(likelihood.double()), p_clean.double()

    def density(weights: Tensor) -> Tensor:
        mean = (weights * x).sum() / weights.sum()
        variance = (weights * (x - mean) ** 2).sum() / weights.sum()
        return torch.exp(-((x - mean) ** 2) / (2 * variance)) / variance.sqrt()

    right, wrong = p * density(p), (1 - p) * density(1 - p)
    torch.testing.assert_close(with_history(p_clean, likelihood, 1), (right / (right + wrong)).float())
    again = with_history(p_clean, likelihood, 2)  # the prior stays, the weights move
    q = (right / (right + wrong)).double()
    right, wrong = p * density(q), (1 - p) * density(1 - q)
    torch.testing.assert_close(again, (right / (right + wrong)).float())


@pytest.mark.parametrize("likelihood", [[0.1, 0.2, 0.9, 0.8], [0.5, 0.5, 0.5, 0.5]])
def test_history_that_speaks_for_wrong_labels_is_not_heard(likelihood: list[float]) -> None:
    p_clean = torch.tensor([0.9, 0.9, 0.1, 0.1])
    assert torch.equal(with_history(p_clean, torch.tensor(likelihood)), p_clean)
    sure = torch.ones(4)
    assert torch.equal(with_history(sure, torch.tensor(likelihood)), sure)


def test_held_out_probabilities_count_and_others_do_not() -> None:
    evidence, wrong = made()
    right = F.one_hot(torch.arange(COUNT) % CLASSES, CLASSES) * 0.85 + 0.05
    told = dataclasses.replace(evidence, probs=right, held_out=True, neighbors=evidence.image_neighbors)
    assert brier(explain(told).p_clean, wrong) < 0.02
    untold = dataclasses.replace(told, probs=evidence.probs, held_out=False, predictions=None)
    assert brier(explain(told).p_clean, wrong) < 0.5 * brier(explain(untold).p_clean, wrong)


def test_without_networks_neighbors_alone_speak() -> None:
    evidence, wrong = made()
    bare = Evidence(
        labels=evidence.labels, class_names=evidence.class_names, ids=evidence.ids, neighbors=evidence.image_neighbors
    )
    found = score_labels(bare)
    assert abs(found.noise_rate.value - float(wrong.float().mean())) < 0.08
    assert set(found["suggestion"]) == {"out_of_sample"} and set(found["against"]) == {""}
    assert wrong[found.order[:200]].float().mean() > 0.85
    lonely = score_labels(dataclasses.replace(bare, neighbors=None))
    assert lonely.noise_rate.low == 0 and lonely.noise_rate.high > 0.6


def test_a_label_that_is_its_own_suggestion_does_not_look_wrong() -> None:
    labels = torch.arange(6) % 3
    probs = torch.full((6, 3), 0.3).scatter(1, labels.unsqueeze(1), 0.4)
    evidence = Evidence(
        labels=labels, probs=probs, predictions=labels.unsqueeze(0), class_names=("a", "b", "c"), ids=tuple("012345")
    )
    found = score_labels(evidence)
    assert (found["suggested"] == found["given"]).all() and not found.looks_wrong.any()
    assert found.summary()["looks_wrong"] == 0


def test_the_interval_is_explained_in_words() -> None:
    evidence, _ = made()
    (text,) = readings(explain(evidence))
    assert "Two halves of the labels agree" in text and text in score_labels(evidence).summary()["readings"]
    (other,) = readings(explain(dataclasses.replace(evidence, neighbors=None)))
    assert "Nothing tells" in other


def test_mean_likelihood_is_what_history_hears() -> None:
    losses = torch.tensor([[[0.0, 2.0]], [[1.0, 2.0]]])
    torch.testing.assert_close(mean_likelihood(losses), torch.tensor([-0.5, -2.0]).exp())
