"""The verbs of the audit: by hand, one example at a time, and with nothing to go by."""

import math

import pytest
import torch
from torch import Tensor

from scanmix.blocks.label_quality import (
    forgetting_events,
    is_outlier,
    issue_types,
    margin,
    mean_likelihood,
    self_confidence,
    truth_posterior,
)
from scanmix.blocks.transition import expected_confusion, transition_matrix


def shares(count: int, classes: int, seed: int = 0) -> Tensor:
    return torch.rand(count, classes, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_the_likelihood_is_the_geometric_mean_over_time_and_networks() -> None:
    probs = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)).clamp(min=0.1)
    found = mean_likelihood(-probs.log())
    for i in range(5):
        product = math.prod(float(p) for p in probs[:, :, i].flatten())
        assert float(found[i]) == pytest.approx(product ** (1 / 6), rel=1e-5)


def test_a_label_is_forgotten_each_time_it_is_lost_again() -> None:
    #            time ->  network a            network b
    right = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]], dtype=torch.bool)
    assert forgetting_events(right).tolist() == [2, 0, 0]
    assert forgetting_events(right[:1]).tolist() == [0, 0, 0]


def test_the_margin_is_the_lead_over_the_best_other_class() -> None:
    belief, labels = shares(40, 4), torch.arange(40) % 4
    for i, found in enumerate(margin(belief, labels).tolist()):
        row = belief[i].tolist()
        given = row.pop(int(labels[i]))
        assert found == pytest.approx(given - max(row))
        assert float(self_confidence(belief, labels)[i]) == pytest.approx(given)


def test_the_posterior_gives_the_label_its_due_and_the_rest_to_the_others() -> None:
    belief, labels = shares(30, 5), torch.arange(30) % 5
    p_clean = torch.rand(30, generator=torch.Generator().manual_seed(1))
    found = truth_posterior(p_clean, belief, labels)
    for i in range(30):
        others = sum(float(b) for c, b in enumerate(belief[i]) if c != labels[i])
        for c in range(5):
            wanted = float(p_clean[i]) if c == labels[i] else (1 - float(p_clean[i])) * float(belief[i, c]) / others
            assert float(found[i, c]) == pytest.approx(wanted, abs=1e-6)


def test_where_no_other_class_has_any_belief_all_others_are_alike() -> None:
    found = truth_posterior(torch.tensor([0.4]), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1]))
    assert found.tolist()[0] == pytest.approx([0.3, 0.4, 0.3])


def test_confusion_and_transition_against_loops() -> None:
    posterior, labels = shares(25, 3), torch.arange(25) % 3
    counts = [[0.0] * 3 for _ in range(3)]
    for i in range(25):
        for true in range(3):
            counts[true][int(labels[i])] += float(posterior[i, true])
    found = expected_confusion(posterior, labels)
    assert torch.allclose(found, torch.tensor(counts, dtype=torch.float64))
    rows = transition_matrix(found)
    assert torch.allclose(rows.sum(1), torch.ones(3, dtype=torch.float64))
    assert float(rows[2, 0]) == pytest.approx(counts[2][0] / sum(counts[2]))
    assert transition_matrix(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_an_outlier_is_below_the_fence_and_a_plain_spread_is_not() -> None:
    similarity = torch.cat([torch.linspace(0.8, 0.9, 50), torch.tensor([0.2])])
    assert is_outlier(similarity).nonzero().flatten().tolist() == [50]
    assert not is_outlier(torch.full((9,), 0.5)).any()


@pytest.mark.parametrize(
    ("p_clean", "belief", "duplicate", "alone", "kind"),
    [
        (0.9, [0.9, 0.1, 0.0], False, False, "fine"),
        (0.9, [0.5, 0.4, 0.1], False, False, "hard"),  # believed, without a lead
        (0.9, [0.2, 0.7, 0.1], False, False, "hard"),  # believed, against the likeliest class
        (0.1, [0.8, 0.1, 0.1], False, False, "hard"),  # not believed, and no other class either
        (0.1, [0.1, 0.8, 0.1], False, False, "wrong"),
        (0.1, [0.1, 0.8, 0.1], False, True, "wrong"),
        (0.1, [0.3, 0.4, 0.3], False, False, "wrong"),
        (0.1, [0.3, 0.4, 0.3], False, True, "out_of_scope"),
        (0.9, [0.3, 0.4, 0.3], False, True, "out_of_scope"),
        (0.9, [0.9, 0.1, 0.0], True, False, "duplicate"),
        (0.1, [0.3, 0.4, 0.3], True, True, "duplicate"),
    ],
)
def test_each_kind(p_clean: float, belief: list[float], duplicate: bool, alone: bool, kind: str) -> None:
    masks, seen = (torch.tensor([duplicate]), torch.tensor([alone])), torch.tensor([belief])
    assert issue_types(torch.tensor([p_clean]), torch.tensor([belief]), seen, torch.tensor([0]), *masks) == [kind]
