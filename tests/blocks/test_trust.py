"""What labels that are known to be right do to weights, targets, selections and matrices."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scanmix.blocks.divide import divide, noise_rate
from scanmix.blocks.mixmatch import refine
from scanmix.blocks.neighbors import nearest_neighbors, voted_labels
from scanmix.blocks.propagated_classes import propagated_classes
from scanmix.blocks.robust import backward_loss, forward_loss
from scanmix.blocks.selection import small_loss
from scanmix.blocks.trust import keep_given, pinned

NONE, ALL = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
SOME = torch.tensor([True, False, False, True, False, False])


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_weights_are_one_where_labels_are_known() -> None:
    weights = torch.rand(2, 6)
    assert pinned(weights, None) is weights and torch.equal(pinned(weights, NONE), weights)
    found = pinned(weights, SOME)
    for peer in range(2):
        for i in range(6):
            assert found[peer, i] == (1 if SOME[i] else weights[peer, i])
    assert pinned(torch.zeros(6, dtype=torch.bool), SOME).tolist() == SOME.tolist()
    assert noise_rate(pinned(torch.zeros(2, 6), SOME), 0.5) == pytest.approx(4 / 6)
    assert divide(pinned(torch.zeros(6), SOME), 0.5).tolist() == SOME.tolist()


@pytest.mark.parametrize("shape", [(6,), (6, 4), (6, 4, 3)])
def test_given_targets_stand_where_labels_are_known(shape: tuple[int, ...]) -> None:
    targets, labels = made(*shape), made(*shape, seed=1)
    assert keep_given(targets, labels, None) is targets
    found = keep_given(targets, labels, SOME)
    for i in range(6):
        assert torch.equal(found[i], labels[i] if SOME[i] else targets[i])


def test_a_given_target_takes_no_gradient_of_the_prediction() -> None:
    logits = made(6, 4).requires_grad_()
    keep_given(logits.softmax(1).square(), torch.ones(6, 4), SOME).sum().backward()
    assert logits.grad is not None and logits.grad.any(1).tolist() == (~SOME).tolist()


def test_a_label_of_weight_one_is_its_own_refined_target() -> None:
    labels = torch.eye(4)[[0, 1, 2, 3, 0, 1]]
    found = refine(made(6, 4).softmax(1), labels, pinned(torch.zeros(6), SOME), 0.5)
    assert torch.equal(found[SOME], labels[SOME]) and not torch.equal(found[~SOME], labels[~SOME])


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 2.0, 9.0, math.nan]), st.booleans()), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_losses_of_known_labels_are_the_smallest(rows: list[tuple[float, bool]], share: float) -> None:
    losses, trusted = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
    found, plain = small_loss(losses, share, trusted), small_loss(losses, share)
    known = trusted.nonzero().squeeze(1).tolist()
    assert len(found) == max(len(plain), len(known)) and found[: len(known)].tolist() == known
    others = [i for i in losses.argsort(stable=True).tolist() if i not in known]
    assert found[len(known) :].tolist() == others[: len(found) - len(known)]


def test_the_matrix_of_a_known_label_is_the_identity() -> None:
    logits, labels = made(6, 3).double(), torch.tensor([0, 1, 2, 2, 1, 0])
    transition = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
    plain = F.cross_entropy(logits, labels, reduction="none")
    for loss, matrix in ((forward_loss, transition), (backward_loss, torch.linalg.inv(transition))):
        each = torch.stack([loss(logits[i : i + 1], labels[i : i + 1], matrix) for i in range(6)])
        wanted = torch.where(SOME, plain, each).mean()
        torch.testing.assert_close(loss(logits, labels, matrix, SOME), wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(loss(logits, labels, matrix, ALL), plain.mean(), atol=1e-6, rtol=0)
        assert torch.equal(loss(logits, labels, matrix, NONE), loss(logits, labels, matrix))
        assert not torch.isclose(each.mean(), wanted)


def groups(rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points in three groups; a share of the labels is drawn anew."""
    true = torch.arange(3).repeat_interleave(60)
    points = 4.0 * torch.eye(3)[true] + made(180, 3)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(3, true.shape, generator=generator)
    return points, true, torch.where(torch.rand(true.shape, generator=generator) < rate, drawn, true)


@pytest.mark.parametrize("rounds", [1, 3])
def test_known_labels_stay_while_neighbors_vote(rounds: int) -> None:
    points, true, labels = groups(0.5)
    trusted = torch.zeros(180, dtype=torch.bool)
    trusted[(labels != true).nonzero().squeeze(1)[:10]] = True
    neighbors = nearest_neighbors(points, 8)
    found = voted_labels(neighbors, labels, 3, rounds, trusted)
    assert torch.equal(found[trusted], labels[trusted])
    assert not torch.equal(voted_labels(neighbors, labels, 3, rounds)[trusted], labels[trusted])
    assert torch.equal(voted_labels(neighbors, labels, 3, rounds, torch.zeros_like(trusted)),
                       voted_labels(neighbors, labels, 3, rounds))  # fmt: skip


def test_known_labels_are_believed_while_classes_are_propagated() -> None:
    points, true, labels = groups(0.5)
    neighbors = nearest_neighbors(points, 8)

    def found(trusted: Tensor | None) -> Tensor:
        probs = propagated_classes(neighbors, labels, 3, torch.Generator().manual_seed(0), trusted=trusted)
        assert bool(probs.isfinite().all())
        return probs

    wrong = labels != true
    few = torch.zeros_like(wrong)
    few[wrong.nonzero().squeeze(1)[:10]] = True
    for trusted in (few, wrong, torch.ones_like(wrong)):
        assert torch.equal(found(trusted)[trusted], torch.eye(3)[labels[trusted]])
    assert float((found(None).argmax(1) == labels)[few].float().mean()) < 0.5, "without, neighbors win"
    assert float((found(few).argmax(1) == true)[~few].float().mean()) > 0.95, "the others are seen as before"
    assert torch.equal(found(torch.zeros_like(wrong)), found(None))
