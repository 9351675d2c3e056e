"""The examples of an epoch: as many of each given label, none twice, the same draw for whoever asks."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scanmix.data.batches import TrainingData
from scanmix.data.subset import Subset, balanced_draw, draw_pool
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine


def made(count: int = 30) -> TrainingData:
    pixels = torch.arange(count * 4, dtype=torch.uint8).view(count, 1, 2, 2)
    labels = torch.tensor([0] * (count - 7) + [1] * 5 + [2] * 2)
    views = make_views(ViewSettings(mean=(0.5,), std=(0.2,)), pixels, flip=False)
    return TrainingData(pixels, labels, 3, views, Engine().generator)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(4, 40), st.integers(0, 5))
def test_each_label_has_its_share_or_all_it_has(labels: list[int], size: int, seed: int) -> None:
    given_labels = torch.tensor(labels)
    index = balanced_draw(given_labels, 4, size, torch.Generator().manual_seed(seed))
    drawn = given_labels[index].tolist()
    assert [drawn.count(label) for label in range(4)] == [min(size // 4, labels.count(label)) for label in range(4)]
    assert index.tolist() == sorted(set(index.tolist()))


def test_every_example_is_drawn_sooner_or_later() -> None:
    data, seen = made(), set[int]()
    for epoch in range(60):
        places = draw_pool(data, 6, epoch).places
        assert places is not None
        seen |= set(places.tolist())
    assert seen == set(range(30))


def test_a_pool_is_the_same_data_seen_through_its_places() -> None:
    data = made()
    pool = draw_pool(data, 9, 4)
    assert pool.places is not None and len(pool.data) == len(pool.places) == 3 + 3 + 2
    assert torch.equal(pool.data.labels, data.labels[pool.places])
    some = torch.tensor([5, 0, 5])
    assert torch.equal(pool.data.images[some], data.images[pool.places[some]])
    assert torch.equal(pool.data.images[1:3], data.images[pool.places[1:3]])
    assert torch.equal(torch.cat(list(pool.data.images.split(3))), data.images[pool.places])
    assert pool.data.images.shape == (8, 1, 2, 2)
    again = draw_pool(dataclasses.replace(data, images=Subset(data.images, data.everything)), 9, 4)
    assert again.places is not None and torch.equal(again.places, pool.places)


@pytest.mark.parametrize("size", [None, 30, 31])
def test_without_a_smaller_size_a_pool_is_all(size: int | None) -> None:
    data = made()
    pool = draw_pool(data, size, 0)
    assert pool.data is data and pool.places is None
    table = torch.rand(2, 30)
    assert pool.scatter(table, 30) is table


def test_what_was_not_drawn_is_no_number() -> None:
    pool = draw_pool(made(), 9, 0)
    assert pool.places is not None
    table = torch.rand(2, len(pool.places))
    full = pool.scatter(table, 30)
    assert torch.equal(full[:, pool.places], table)
    assert int(full.isnan().sum()) == 2 * (30 - len(pool.places))
