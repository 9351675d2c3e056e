"""Numbers of neighbors against counting by hand."""

import pytest
import torch
from torch import Generator, Tensor

from scanmix.blocks.adaptive_neighbors import least_agreeing, likeliest_number, votes_so_far
from scanmix.blocks.neighbors import nearest_neighbors


def made(count: int, classes: int, seed: int, most: int) -> tuple[Tensor, Tensor]:
    """Neighbors of random points, and random labels that follow the points a little."""
    draws = Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=draws)
    labels = (points[:, 0] + 0.5 * torch.randn(count, generator=draws)).argsort().argsort() * classes // count
    return nearest_neighbors(points, most), labels


def winner(labels: list[int], classes: int) -> int:
    """The class with most votes; of equal ones the first."""
    return max(range(classes), key=lambda c: (labels.count(c), -c))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [2, 5])
def test_the_least_number_is_that_of_a_loop(seed: int, classes: int) -> None:
    neighbors, labels = made(60, classes, seed, most=9)
    found = least_agreeing(neighbors, labels, classes, fewest=3)
    expected = []
    for near, label in zip(neighbors.tolist(), labels.tolist(), strict=True):
        said = [k for k in range(3, 10) if winner([int(labels[i]) for i in near[:k]], classes) == label]
        expected.append(said[0] if said else 9)
    assert found.tolist() == expected
    assert {3, 9} <= set(expected) and len(set(expected)) > 2, "or the test shows nothing"


@pytest.mark.parametrize("seed", range(4))
def test_the_number_that_is_chosen_says_most_given_labels(seed: int) -> None:
    neighbors, labels = made(80, 4, seed, most=30)
    tried = (1, 4, 12, 30)
    right = {
        k: sum(
            winner([int(labels[i]) for i in near[:k]], 4) == label
            for near, label in zip(neighbors.tolist(), labels.tolist(), strict=True)
        )
        for k in tried
    }
    found = likeliest_number(neighbors, labels, 4, tried)
    assert right[found] == max(right.values()) and len(set(right.values())) > 1
    assert found == min(k for k in tried if right[k] == right[found]), "of equal ones the first"


def test_votes_add_up_one_neighbor_at_a_time() -> None:
    neighbors, labels = torch.tensor([[1, 2], [2, 0], [0, 1]]), torch.tensor([0, 1, 1])
    one, two = (votes.clone() for votes in votes_so_far(neighbors, labels, 3))
    assert one.tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert two.tolist() == [[0, 2, 0], [1, 1, 0], [1, 1, 0]]
