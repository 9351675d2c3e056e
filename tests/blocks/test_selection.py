"""Which examples of a batch count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scanmix.blocks.selection import (
    class_weights,
    cleanest_of_each_class,
    groups_of_classes,
    lowest_of_each_class,
    mean_one,
    moving_percentile,
    percentile,
    small_loss,
    weight_of_small_losses,
    wins_vote,
    with_every_class,
)


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=30), st.floats(0, 1))
def test_small_losses_are_the_smallest(values: list[float], share: float) -> None:
    losses = torch.tensor(values)
    chosen = small_loss(losses, share).tolist()
    assert len(chosen) == len(set(chosen)) == max(1, int(share * len(values) + 1e-9))
    ranked = sorted(range(len(values)), key=lambda i: (losses[i].item(), i))
    assert chosen == ranked[: len(chosen)]


@pytest.mark.parametrize(("share", "count"), [(0.7, 7), (1.0, 10), (0.0, 1), (0.29, 2), (0.3, 3)])
def test_how_many_are_kept(share: float, count: int) -> None:
    assert len(small_loss(torch.rand(10), share)) == count


@pytest.mark.parametrize(
    ("progress", "weights"),
    [
        (0.0, [1.0, 1.0, 1.0, 1.0]),
        (0.18, [1.0, 1.0, 1.0, 1.0]),
        (0.19, [1.0, 1.0, 0.0, 0.0]),
        (0.9, [1.0, 1.0, 0.75, 0.0]),
    ],
)
def test_the_predefined_curriculum(progress: float, weights: list[float]) -> None:
    losses = torch.tensor([0.1, 1.0, 1.25, 2.5])
    assert weight_of_small_losses(losses, 1.0, progress).tolist() == pytest.approx(weights)


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=30), st.floats(0, 1))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    assert float(percentile(torch.tensor(values), share)) == pytest.approx(float(np.quantile(values, share)), abs=1e-4)


def test_a_label_that_wins_the_vote_of_its_neighbors() -> None:
    """Slow version: count, weigh by rarity, compare."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (40,), generator=generator)
    labels[:25] = 0  # class 0 is frequent, so its votes count less
    neighbors = torch.stack([torch.randperm(40, generator=generator)[:7] for _ in range(40)])
    for threshold in (1.0, 0.6):
        wanted = []
        for i in range(40):
            votes = [0.0, 0.0, 0.0]
            for j in neighbors[i].tolist():
                votes[int(labels[j])] += 1 / int((labels == labels[j]).sum())
            wanted.append(votes[int(labels[i])] >= threshold * max(votes) - 1e-7)
        assert wins_vote(labels, neighbors, 3, threshold).tolist() == wanted
    assert wins_vote(labels, neighbors, 3, 0.0).all()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=20))
def test_a_class_of_which_none_is_chosen_is_taken_whole(examples: list[tuple[bool, int]]) -> None:
    chosen, labels = (torch.tensor(column) for column in zip(*examples, strict=True))
    lost = set(labels.tolist()) - set(labels[chosen].tolist())
    wanted = [taken or label in lost for taken, label in examples]
    assert with_every_class(chosen, labels, 5).tolist() == wanted


def test_class_weights() -> None:
    labels = torch.tensor([0] * 8 + [1] * 4 + [3])
    assert class_weights(labels, 4).tolist() == pytest.approx([13 / 3 / 8, 13 / 3 / 4, 0.0, 3.0])


def test_the_moving_percentile_begins_where_the_first_batch_is() -> None:
    first = moving_percentile(None, torch.tensor([1.0, 2.0, 3.0]), 0.5, 0.9)
    assert first == 2.0
    assert moving_percentile(first, torch.tensor([12.0]), 0.5, 0.9).item() == pytest.approx(3.0)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_lowest_of_each_class(count: int) -> None:
    """Slow: sort each class by value, then by position."""
    draws = torch.Generator().manual_seed(0)
    labels, values = torch.randint(0, 4, (40,), generator=draws), torch.randint(0, 6, (40,), generator=draws).float()
    labels[labels == 2] = 1  # no example of this class
    found = lowest_of_each_class(values, labels, 5, count).nonzero().squeeze(1).tolist()
    wanted = []
    for label in range(5):
        rows = sorted((float(values[row]), row) for row in range(40) if labels[row] == label)
        wanted += [row for _, row in rows[:count]]
    assert found == sorted(wanted)


def test_weights_of_mean_one() -> None:
    assert mean_one(torch.tensor([0.0, 1.0, 3.0, 0.0])).tolist() == [0, 1, 3, 0]
    assert mean_one(torch.tensor([0.0, 2.0, 6.0, 0.0])).tolist() == [0, 1, 3, 0]
    assert mean_one(torch.zeros(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_groups_are_of_one_class_and_have_every_example(size: int) -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [3] * 6)[torch.randperm(18, generator=torch.Generator().manual_seed(0))]
    draws = torch.Generator().manual_seed(1)
    found = groups_of_classes(labels, 4, size, draws)
    assert found.shape == (sum(math.ceil(n / size) for n in (10, 2, 6)), size)
    assert bool((labels[found] == labels[found[:, :1]]).all())
    counts = found.flatten().bincount(minlength=18)
    assert int(counts.min()) >= 1
    for label, size_of in ((0, 10), (3, 6)):
        assert int(counts[labels == label].max()) <= 2 if size <= size_of else True
    assert not torch.equal(found, groups_of_classes(labels, 4, size, draws)), "drawn anew"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=40))
def test_as_many_of_every_class_by_hand(rows: list[tuple[int, int, bool]]) -> None:
    labels, doubts, agree = (torch.tensor([row[part] for row in rows]) for part in range(3))
    found = cleanest_of_each_class(doubts.float(), agree, labels, 6)
    kinds = sorted(set(labels.tolist()))
    counts = sorted(sum(row[2] for row in rows if row[0] == kind) for kind in kinds)
    most = max(1, counts[(len(counts) - 1) // 2])
    for kind in kinds:
        members = [i for i, row in enumerate(rows) if row[0] == kind]
        wanted = sorted(members, key=lambda i: (rows[i][1], i))[:most]
        assert [i for i in members if found[i]] == sorted(wanted)
