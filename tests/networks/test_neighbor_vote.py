"""The vote of training rows against a loop over them; equal rows, chunks, and what a file may hold."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import scanmix.networks.neighbor_vote as module
from scanmix.networks.neighbor_vote import NeighborVote, VoteShape, empty_vote


def made(count: int, seed: int = 0, classes: int = 3, most: int = 7, equal: bool = False) -> NeighborVote:
    draws = Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(count, 4, generator=draws), dim=1)
    if equal:
        rows = rows[torch.arange(count) // 5 * 5]
    labels = torch.randint(classes, (count,), generator=draws)
    reach = torch.randint(1, most + 1, (count,), generator=draws)
    return NeighborVote(rows.half(), labels, 1 / (1 + reach), reach, num_classes=classes, most=most)


def slow(vote: NeighborVote, query: Tensor) -> Tensor:
    """Probabilities of one row: sort all similarities, ask the first `reach` of the nearest, add one even vote."""
    similarity = (vote.rows.float() @ F.normalize(query, dim=0)).tolist()
    order = sorted(range(len(similarity)), key=lambda i: (-round(similarity[i] / 1e-5), i))
    reach = int(vote.reach[order[0]])
    votes = torch.zeros(vote.num_classes)
    for i in order[:reach]:
        votes[vote.labels[i]] += vote.weights[i]
    return (reach * votes / votes.sum() + 1 / vote.num_classes) / (reach + 1)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("chunk", [9, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_a_loop_over_all_rows_says(
    seed: int, chunk: int, equal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    vote = made(40, seed, equal=equal)
    queries = torch.randn(25, 4, generator=Generator().manual_seed(seed + 100))
    found = vote(queries).softmax(1)
    torch.testing.assert_close(found, torch.stack([slow(vote, query) for query in queries]))
    assert len(found.argmax(1).unique()) > 1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_length_of_a_row_does_not_matter(scale: float) -> None:
    vote, queries = made(30), torch.randn(10, 4, generator=Generator().manual_seed(1))
    torch.testing.assert_close(vote(scale * queries), vote(queries))


def test_of_equal_rows_the_first_ones_vote() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).half()
    labels, two = torch.tensor([0, 1, 2, 2]), torch.full((4,), 2)
    vote = NeighborVote(rows, labels, torch.ones(4), two, num_classes=3, most=2)
    found = vote(torch.tensor([[3.0, 0.1]])).softmax(1)
    torch.testing.assert_close(found, torch.tensor([[(1 + 1 / 3) / 3, (1 + 1 / 3) / 3, 1 / 9]]))


def test_a_row_of_zeros_and_a_class_without_votes_give_numbers() -> None:
    vote = made(20, classes=6)
    assert bool(vote(torch.zeros(2, 4)).isfinite().all())
    assert vote(torch.empty(0, 4)).shape == (0, 6)


def test_an_empty_one_takes_the_weights_of_its_shape_alone() -> None:
    vote = made(20)
    assert vote.shape == VoteShape(rows=20, most=7)
    again = empty_vote(vote.shape, 4, 3)
    again.load_state_dict(vote.state_dict())
    queries = torch.randn(10, 4, generator=Generator().manual_seed(1))
    assert torch.equal(again(queries), vote(queries))
    with pytest.raises(RuntimeError, match="size mismatch"):
        empty_vote(VoteShape(rows=19, most=7), 4, 3).load_state_dict(vote.state_dict())
    with pytest.raises(ValueError, match="8 of 7 rows"):
        empty_vote(VoteShape(rows=7, most=8), 4, 3)


def test_along_directions_it_votes_as_on_the_places_there() -> None:
    draws = Generator().manual_seed(2)
    center, directions = torch.randn(6, generator=draws), torch.randn(6, 4, generator=draws)
    plain, queries = made(30), torch.randn(10, 6, generator=draws)
    along = NeighborVote(
        plain.rows,
        plain.labels,
        plain.weights,
        plain.reach,
        num_classes=3,
        most=7,
        center=center,
        directions=directions,
    )
    torch.testing.assert_close(along(queries), plain((queries - center) @ directions))
    assert along.shape == VoteShape(rows=30, most=7, directions=4)
    again = empty_vote(along.shape, 6, 3)
    again.load_state_dict(along.state_dict())
    assert torch.equal(again(queries), along(queries))
