"""Neighbors against brute force in float64; draws against the chi-square test."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

import scanmix.blocks.neighbors as module
from scanmix.blocks.neighbors import agreeing, draw_neighbor, nearest_neighbors, neighbor_vote, voted_labels
from scanmix.config import UserError


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_distances(features: Tensor) -> list[list[float]]:
    """Euclidean distances between L2-normalized rows, one pair at a time."""
    unit = [row / row.norm() for row in features.double()]
    return [[float((one - other).norm()) for other in unit] for one in unit]


@pytest.mark.parametrize("chunk", [1, 2, 7, 22, 23, 24, 512])
@pytest.mark.parametrize("k", [1, 5, 22])
def test_neighbors_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, chunk: int, k: int) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    scales = made(23, 1, seed=1).exp()  # length must not matter
    features = made(23, 4) * scales
    found = nearest_neighbors(features, k)
    assert found.shape == (23, k) and found.dtype == torch.int64
    for i, row in enumerate(slow_distances(features)):
        others = sorted((distance, j) for j, distance in enumerate(row) if j != i)
        assert found[i].tolist() == [j for _, j in others[:k]]


def test_angles_on_a_circle_have_the_obvious_neighbors() -> None:
    angles = torch.tensor([0.0, 0.1, 0.3, 1.0, 1.2]).double()
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [9], [0.1], [5], [2]])
    assert nearest_neighbors(features, 2).tolist() == [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2]]


def test_a_duplicate_is_a_neighbor_and_the_example_itself_is_not() -> None:
    features = torch.cat([made(3, 8), made(3, 8)])  # i and i + 3 are the same
    found = nearest_neighbors(features, 5)
    assert found[:, 0].tolist() == [3, 4, 5, 0, 1, 2]
    for i in range(6):
        assert sorted(found[i].tolist()) == [j for j in range(6) if j != i]


@pytest.mark.parametrize("width", [3, 8, 50])
@pytest.mark.parametrize("compared", [1, 700, 1 << 25])
def test_of_equal_neighbors_the_smaller_position_comes_first(
    monkeypatch: pytest.MonkeyPatch, width: int, compared: int
) -> None:
    """Whole numbers, of which products are exact: many examples are equal, and more are equally far."""
    monkeypatch.setattr(module, "WIDTH", width)
    monkeypatch.setattr(module, "COMPARED", compared)
    axes = torch.eye(4)[torch.randint(4, (50,), generator=torch.Generator().manual_seed(5))]
    found = nearest_neighbors(axes, 18)
    for i, row in enumerate((axes @ axes.T).tolist()):
        others = sorted((-near, j) for j, near in enumerate(row) if j != i)
        assert found[i].tolist() == [j for _, j in others[:18]]


@pytest.mark.parametrize("width", [1, 5, 16, 100])
def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    features = made(97, 6)
    expected = nearest_neighbors(features, 7)
    monkeypatch.setattr(module, "WIDTH", width)
    assert torch.equal(nearest_neighbors(features, 7), expected)


def test_similarities_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPARED", 5000)
    monkeypatch.setattr(module, "WIDTH", 64)
    made_sizes: list[int] = []
    full = torch.full

    def counting(size: tuple[int, ...], *args: Any, **more: Any) -> Tensor:
        made_sizes.append(torch.Size(size).numel())
        return full(size, *args, **more)

    monkeypatch.setattr(torch, "full", counting)
    nearest_neighbors(made(1000, 4), 3)
    assert max(made_sizes) <= 5000


def test_many_examples_are_looked_for_in_cells_and_nearly_all_neighbors_found() -> None:
    """Twenty loose groups in eight dimensions: about 77 cells, of which a third are looked into."""
    generator = torch.Generator().manual_seed(2)
    centers = torch.randn(20, 8, generator=generator)
    features = centers[torch.randint(20, (6000,), generator=generator)] + 0.5 * torch.randn(
        6000, 8, generator=generator
    )
    exact, near = nearest_neighbors(features, 10), nearest_neighbors(features, 10, exact_up_to=5999)
    share = (near.unsqueeze(2) == exact.unsqueeze(1)).any(2).float().mean()
    assert 0.95 < float(share) < 1
    assert torch.equal(near, nearest_neighbors(features, 10, exact_up_to=0))
    unit = torch.nn.functional.normalize(features, dim=1)
    similarity = (unit.unsqueeze(1) * unit[near]).sum(2)
    assert bool((similarity.diff(dim=1) <= 1e-6).all())  # nearest first
    assert not bool((near == torch.arange(6000).unsqueeze(1)).any())


@pytest.mark.parametrize("k", [1, 30, 399])
def test_more_neighbors_than_a_cell_holds(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    monkeypatch.setattr(module, "PROBES", 1)
    found = nearest_neighbors(made(400, 5), k, exact_up_to=0)
    for i, row in enumerate(found.tolist()):
        assert len(set(row)) == k and i not in row


def test_cells_of_equal_examples() -> None:
    found = nearest_neighbors(torch.ones(300, 3), 4, exact_up_to=0)
    assert found[0].tolist() == [1, 2, 3, 4] and found[299].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("k", [0, 4, 5, -1])
def test_too_many_or_no_neighbors_are_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"{k} nearest neighbors of 4 .* 1 to 3"):
        nearest_neighbors(made(4, 2), k)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_agreeing_is_the_slow_one(count: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randint(count, (count, k), generator=generator)
    prediction = torch.randint(3, (count,), generator=generator)
    agree = agreeing(candidates, prediction)
    assert agree.dtype == torch.bool
    for i in range(count):
        for slot, j in enumerate(candidates[i].tolist()):
            assert bool(agree[i, slot]) == (int(prediction[j]) == int(prediction[i]))


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_only_allowed_neighbors_are_drawn(count: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randint(1000, (count, k), generator=generator)
    allowed = torch.rand(count, k, generator=generator) < 0.4
    drawn = draw_neighbor(candidates, allowed, generator)
    assert drawn.shape == (count,) and drawn.dtype == torch.int64
    for i in range(count):
        fine = candidates[i][allowed[i]] if allowed[i].any() else candidates[i]
        assert int(drawn[i]) in fine.tolist()


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ([True, False, True, True], [10, 12, 13]),
        ([True, True, True, True], [10, 11, 12, 13]),
        ([False, False, False, False], [10, 11, 12, 13]),  # nothing to choose from: all of them
        ([False, True, False, True], [11, 13]),
    ],
)
def test_each_allowed_neighbor_is_as_likely(allowed: list[bool], expected: list[int]) -> None:
    rows = 12_000
    candidates = torch.tensor([10, 11, 12, 13]).expand(rows, 4)
    drawn = draw_neighbor(candidates, torch.tensor(allowed).expand(rows, 4), torch.Generator().manual_seed(3))
    counts = Counter(drawn.tolist())
    assert sorted(counts) == expected
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_draws_follow_the_generator_and_leave_the_mask_alone() -> None:
    candidates = torch.arange(40).view(4, 10)
    allowed = torch.zeros(4, 10, dtype=torch.bool)
    draws = [draw_neighbor(candidates, allowed, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not allowed.any()


def slow_vote(neighbors: Tensor, shares: list[list[float]]) -> list[list[float]]:
    columns = range(len(shares[0]))
    return [[sum(shares[j][c] for j in row) / len(row) for c in columns] for row in neighbors.tolist()]


@given(st.integers(2, 10), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_vote_is_the_slow_one(count: int, k: int, num_classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    neighbors = torch.randint(count, (count, k), generator=generator)
    shares = torch.rand(count, num_classes, generator=generator, dtype=torch.float64)
    before = shares.clone()
    expected = torch.tensor(slow_vote(neighbors, shares.tolist()), dtype=torch.float64)
    assert torch.allclose(neighbor_vote(neighbors, shares), expected)
    assert torch.equal(shares, before)


@given(st.integers(4, 12), st.integers(1, 5), st.integers(2, 4), st.integers(0, 4), st.integers(0, 2**31))
def test_voted_labels_are_the_slow_ones(count: int, k: int, num_classes: int, rounds: int, seed: int) -> None:
    """Each winner's lead over its class's share is the largest there is; ties may go either way."""
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randint(count, (count, k), generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    votes = [[float(c == label) for c in range(num_classes)] for label in labels.tolist()]
    for _ in range(rounds):
        votes = slow_vote(candidates, votes)
    share = [sum(row[c] for row in votes) / count for c in range(num_classes)]
    for winner, row in zip(voted_labels(candidates, labels, num_classes, rounds).tolist(), votes, strict=True):
        lead = [vote - usual for vote, usual in zip(row, share, strict=True)]
        assert lead[winner] == pytest.approx(max(lead), abs=1e-6)


def test_no_rounds_leave_labels_and_some_rounds_clean_them() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(400) % 4
    candidates = (torch.arange(400).unsqueeze(1) + 4 * torch.randint(1, 100, (400, 10), generator=generator)) % 400
    noise = torch.randint(4, (400,), generator=generator)
    labels = torch.where(torch.rand(400, generator=generator) < 0.7, noise, true)
    right = [float((voted_labels(candidates, labels, 4, rounds) == true).float().mean()) for rounds in range(4)]
    assert torch.equal(voted_labels(candidates, labels, 4, 0), labels)
    assert right[0] < 0.55 and right[1] > right[0] + 0.2 and right[3] > 0.99


def test_a_common_class_does_not_win_where_it_is_rarer_than_usual() -> None:
    """Three quarters of all votes are for class 0; whoever sees it in half of its candidates is of class 1."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    candidates = torch.tensor(
        [[0, 1], [2, 3], [4, 5], [6, 7], [8, 0], [1, 2], [3, 4], [5, 6], [7, 8], [0, 9], [1, 10], [2, 11]]
    )
    assert voted_labels(candidates, labels, 2, 1).tolist() == labels.tolist()
