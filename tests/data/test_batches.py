"""Batches: every index, the right number of times, in an order that the generator decides."""

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from scanmix.data.batches import TrainingData, batches, paired
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def lists(parts: list[Tensor]) -> list[list[int]]:
    return [part.tolist() for part in parts]


def flat(parts: list[Tensor]) -> list[int]:
    return [i for part in parts for i in part.tolist()]


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_every_index_comes_exactly_once(count: int, size: int, seed: int) -> None:
    index = torch.arange(100, 100 + count)
    found = list(batches(index, size, generator(seed)))
    assert sorted(flat(found)) == index.tolist()
    slow = [size] * (count // size) + [count % size] * (count % size > 0)
    if len(slow) > 1 and slow[-1] == 1 and size > 1:
        slow[-2:] = [size + 1]
    assert [len(batch) for batch in found] == slow


@given(st.integers(0, 40), st.integers(2, 12), st.integers(0, 2**31))
def test_drop_last_leaves_only_full_batches_or_the_only_one(count: int, size: int, seed: int) -> None:
    found = list(batches(torch.arange(count), size, generator(seed), drop_last=True))
    whole = list(batches(torch.arange(count), size, generator(seed)))
    if count <= size:
        assert lists(found) == lists(whole)
    else:
        assert [len(batch) for batch in found] == [size] * (count // size)
        assert flat(found) == flat(whole)[: count // size * size]


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert [len(batch) for batch in batches(torch.arange(9), 4, generator())] == [4, 5]
    assert [len(batch) for batch in batches(torch.arange(10), 4, generator())] == [4, 4, 2]
    assert [len(batch) for batch in batches(torch.arange(9), 4, generator(), drop_last=True)] == [4, 4]
    assert [len(batch) for batch in batches(torch.arange(1), 4, generator())] == [1]
    assert [len(batch) for batch in batches(torch.arange(3), 4, generator(), drop_last=True)] == [3]


def test_the_order_is_random_and_follows_the_generator() -> None:
    index = torch.arange(50)
    first, again, other = (flat(list(batches(index, 8, generator(seed)))) for seed in (1, 1, 2))
    assert first == again != other
    assert first != index.tolist()
    shared = generator(1)
    assert flat(list(batches(index, 8, shared))) != flat(list(batches(index, 8, shared)))


def divided(clean: int, noisy: int) -> tuple[Tensor, list[int], list[int]]:
    """A mask with so many clean and noisy places, all mixed up, and both lists of places."""
    mask = torch.zeros(clean + noisy, dtype=torch.bool)
    mask[torch.randperm(clean + noisy, generator=generator(9))[:clean]] = True
    places = range(clean + noisy)
    return mask, [i for i in places if mask[i]], [i for i in places if not mask[i]]


def test_paired_passes_once_over_the_clean_set_and_starts_the_noisy_one_again() -> None:
    mask, clean, noisy = divided(20, 6)
    pairs = list(paired(mask, 4, generator()))
    assert len(pairs) == 5
    assert sorted(flat([labeled for labeled, _ in pairs])) == clean
    unlabeled = [batch for _, batch in pairs]
    assert [len(batch) for batch in unlabeled] == [4, 2, 4, 2, 4]
    for start in (0, 2):  # each pass over the noisy set holds all of it once
        assert sorted(flat(unlabeled[start : start + 2])) == noisy


def test_a_noisy_set_that_starts_again_is_shuffled_again() -> None:
    mask, _, noisy = divided(60, 30)
    pairs = list(paired(mask, 30, generator()))
    assert len(pairs) == 2
    first, second = pairs[0][1].tolist(), pairs[1][1].tolist()
    assert sorted(first) == sorted(second) == noisy and first != second


def test_what_is_left_of_a_large_noisy_set_is_not_seen() -> None:
    mask, clean, noisy = divided(8, 100)
    pairs = list(paired(mask, 4, generator()))
    seen = flat([unlabeled for _, unlabeled in pairs])
    assert len(pairs) == 2 and len(seen) == len(set(seen)) == 8
    assert set(seen) <= set(noisy)
    assert sorted(flat([labeled for labeled, _ in pairs])) == clean


@pytest.mark.parametrize(("minimum", "passes"), [(0, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_a_small_clean_set_is_passed_over_until_there_are_enough_steps(minimum: int, passes: int) -> None:
    mask, clean, _ = divided(10, 20)
    pairs = list(paired(mask, 4, generator(), minimum))
    assert len(pairs) == 3 * passes >= minimum
    rounds = [flat([labeled for labeled, _ in pairs[3 * i : 3 * i + 3]]) for i in range(passes)]
    assert all(sorted(one) == clean for one in rounds)
    assert len({tuple(one) for one in rounds}) == passes, "each pass has its own order"


@pytest.mark.parametrize("minimum", [0, 5])
def test_an_empty_noisy_set_gives_empty_batches(minimum: int) -> None:
    pairs = list(paired(divided(6, 0)[0], 3, generator(), minimum))
    assert len(pairs) == (6 if minimum else 2)
    for labeled, unlabeled in pairs:
        assert len(labeled) == 3
        assert unlabeled.shape == (0,) and unlabeled.dtype == torch.int64


@pytest.mark.parametrize("minimum", [0, 5])
def test_an_empty_clean_set_gives_nothing_and_ends(minimum: int) -> None:
    assert list(islice(paired(divided(0, 9)[0], 3, generator(), minimum), 3)) == []


def test_one_clean_example_is_a_batch() -> None:
    mask, clean, _ = divided(1, 9)
    pairs = list(paired(mask, 3, generator(), 4))
    assert [labeled.tolist() for labeled, _ in pairs] == [clean] * 4
    assert Counter(flat([unlabeled for _, unlabeled in pairs])).most_common(1)[0][1] == 2  # 12 of 9


def made_data(images: Tensor) -> TrainingData:
    labels = torch.arange(len(images)) % 3
    views = make_views(ViewSettings(), images, flip=True)
    return TrainingData(images, labels, 3, views, lambda stage, epoch, purpose: generator())


def test_training_data_looks_images_and_labels_up_by_index() -> None:
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=generator())
    data = made_data(images)
    index = torch.tensor([4, 1])
    assert len(data) == 5
    assert torch.equal(data.eval_view(index), data.views.eval_view(images[index]))
    assert torch.equal(data.eval_view(slice(1, 3)), data.views.eval_view(images[1:3]))
    assert data.one_hot(index).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert data.one_hot(torch.tensor([2, 3])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert data.one_hot(index).dtype == torch.float32
    assert data.everything.tolist() == [0, 1, 2, 3, 4]


def test_training_data_hands_out_one_generator_for_each_purpose() -> None:
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    views = make_views(ViewSettings(), images, flip=True)
    engine = Engine(seed=4)
    data = TrainingData(images, torch.zeros(2, dtype=torch.int64), 1, views, engine.generator)
    order, mix = data.generators("learn", 3, "order", "mixup")
    assert order.initial_seed() == engine.generator("learn", 3, "order").initial_seed()
    assert mix.initial_seed() == engine.generator("learn", 3, "mixup").initial_seed()


def test_fingerprint_sees_every_pixel_and_the_shape_and_no_label() -> None:
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8, generator=generator())
    data = made_data(images)
    relabeled = TrainingData(images, data.labels.roll(1), 3, data.views, data.generator)
    assert data.fingerprint() == relabeled.fingerprint() == made_data(images.clone()).fingerprint()
    touched = images.clone()
    touched[4, 0, 7, 7] ^= 1
    assert made_data(touched).fingerprint() != data.fingerprint()
    assert made_data(images.view(5, 1, 4, 16)).fingerprint() != data.fingerprint()
    assert made_data(images.flip(0)).fingerprint() != data.fingerprint()
