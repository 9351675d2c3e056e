from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition


def make(count: int = 12, classes: int = 3, **changes: Any) -> Examples:
    generator = torch.Generator().manual_seed(0)
    parts: dict[str, Any] = {
        "images": torch.randint(0, 256, (count, 3, 8, 10), generator=generator).to(torch.uint8),
        "labels": torch.arange(count) % classes,
        "class_names": tuple("abcdefghij"[:classes]),
        "ids": tuple(f"id{i}" for i in range(count)),
        "paths": tuple(f"/x/{i}.png" for i in range(count)),
    }
    return Examples(**(parts | changes))


def test_sizes() -> None:
    examples = make()
    assert (len(examples), examples.num_examples, examples.num_classes) == (12, 12, 3)
    assert (examples.channels, examples.size) == (3, (8, 10))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ("a", "b", "a")}, "'data' has two classes called 'a'; give each class a name of its own"),
        ({"images": torch.zeros(12, 3, 8, 8)}, "uint8"),
        ({"images": torch.zeros(12, 8, 8, dtype=torch.uint8)}, r"\(12, 8, 8\)"),
        ({"labels": torch.zeros(11, dtype=torch.int64)}, "12 int64"),
        ({"labels": torch.zeros(12)}, "12 int64"),
        ({"labels": torch.full((12,), 3)}, r"0\.\.2, but run from 3 to 3"),
        ({"labels": torch.full((12,), -1)}, "from -1"),
        ({"true_labels": torch.full((12,), 3)}, "true labels"),
        ({"true_labels": torch.full((12,), -2)}, r"true labels of 'data' must lie in -1\.\.2"),
        ({"ids": ("same",) * 12}, "12 different ids and has 1"),
        ({"paths": ("/x",)}, "1 paths"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**changes)


@pytest.mark.parametrize("index", [[5, 0, 7], torch.tensor([5, 0, 7]), np.array([5, 0, 7])])
def test_select_keeps_every_part_in_step(index: Any) -> None:
    whole = make(true_labels=torch.zeros(12, dtype=torch.int64))
    part = whole.select(index)
    for place, origin in enumerate([5, 0, 7]):
        assert torch.equal(part.images[place], whole.images[origin])
        assert part.labels[place] == whole.labels[origin]
        assert part.ids[place] == whole.ids[origin]
        assert part.paths is not None and whole.paths is not None
        assert part.paths[place] == whole.paths[origin]
    assert part.true_labels is not None and part.true_labels.tolist() == [0, 0, 0]


def test_select_by_mask_empty_and_wrong() -> None:
    whole = make()
    assert whole.select(whole.labels == 1).ids == ("id1", "id4", "id7", "id10")
    assert whole.select([-1]).ids == ("id11",)
    assert len(whole.select([])) == 0
    with pytest.raises(IndexError):
        whole.select([12])
    with pytest.raises(IndexError):
        whole.select(torch.ones(5, dtype=torch.bool))


def test_select_measures_the_noise_of_what_is_left() -> None:
    true = torch.tensor([0, 0, 1, 1])
    given = torch.tensor([0, 1, 1, 0])
    report = NoiseReport(
        kind="file", asked_rate=None, actual_rate=0.5, seed=None, transition=measure_transition(true, given, 2)
    )
    part = make(4, 2, labels=given, true_labels=true, noise=report).select([0, 1, 2])
    assert part.noise is not None
    assert part.noise.actual_rate == pytest.approx(1 / 3)
    assert part.noise.transition == ((0.5, 0.5), (0.0, 1.0))


def test_per_class_is_balanced_nested_and_seeded() -> None:
    whole = make(90, 3)
    small, large = whole.per_class(5), whole.per_class(9)
    assert small.labels.bincount().tolist() == [5, 5, 5]
    assert set(small.ids) < set(large.ids)
    assert list(small.ids) == sorted(small.ids, key=lambda name: int(name[2:]))
    assert whole.per_class(5).ids == small.ids
    assert whole.per_class(5, seed=1).ids != small.ids
    with pytest.raises(UserError, match="has 30 of 'a'"):
        whole.per_class(31)
    with pytest.raises(UserError, match="at least 1"):
        whole.per_class(0)


def test_with_labels_remembers_the_first_labels() -> None:
    first = make()
    second = first.with_labels(torch.zeros(12, dtype=torch.int64))
    third = second.with_labels(torch.ones(12, dtype=torch.int64))
    assert third.true_labels is not None and torch.equal(third.true_labels, first.labels)
    assert third.labels.tolist() == [1] * 12
    assert first.true_labels is None


def test_source_follows_what_can_be_repeated_and_only_that() -> None:
    loaded = make(source={"load": {"source": "digits"}, "split": "train"})
    steps = loaded.per_class(2, seed=4).without_true_labels().source
    assert steps is not None
    assert json.loads(json.dumps(steps)) == {
        "load": {"source": "digits"},
        "split": "train",
        "steps": [{"per_class": {"count": 2, "seed": 4}}, {"without_true_labels": True}],
    }
    assert loaded.select([0]).source is None
    assert loaded.with_labels(loaded.labels).source is None
    assert make().per_class(2).source is None


def test_without_true_labels_leaves_no_trace() -> None:
    report = NoiseReport(kind="file", asked_rate=None, actual_rate=0, seed=None, transition=())
    bare = make(true_labels=torch.zeros(12, dtype=torch.int64), noise=report).without_true_labels()
    assert bare.true_labels is None and bare.noise is None


def test_fingerprint_sees_pixels_labels_and_shape_and_nothing_else() -> None:
    examples = make()
    assert examples.fingerprint() == make().fingerprint()
    assert len(examples.fingerprint()) == 64
    pixels = examples.images.clone()
    pixels[3, 0, 0, 0] ^= 1
    labels = examples.labels.clone()
    labels[0] = 2
    others = [
        dataclasses.replace(examples, images=pixels),
        dataclasses.replace(examples, labels=labels),
        dataclasses.replace(examples, images=examples.images.reshape(12, 3, 10, 8)),
    ]
    assert len({examples.fingerprint(), *(other.fingerprint() for other in others)}) == 4
    renamed = dataclasses.replace(examples, name="other", true_labels=labels)
    assert renamed.fingerprint() == examples.fingerprint()


def test_fingerprint_does_not_depend_on_memory_order() -> None:
    examples = make()
    last = examples.images.contiguous(memory_format=torch.channels_last)
    assert dataclasses.replace(examples, images=last).fingerprint() == examples.fingerprint()


def test_transition_against_counting() -> None:
    generator = torch.Generator().manual_seed(1)
    true = torch.randint(0, 4, (200,), generator=generator)  # class 4 stays empty
    given = torch.randint(0, 5, (200,), generator=generator)
    table = measure_transition(true, given, 5)
    for i in range(5):
        members = [int(g) for t, g in zip(true, given, strict=True) if int(t) == i]
        for j in range(5):
            assert table[i][j] == pytest.approx(members.count(j) / len(members) if members else 0.0)
    assert changed_share(true, given) == pytest.approx(sum(t != g for t, g in zip(true, given, strict=True)) / 200)
    assert changed_share(true[:0], given[:0]) == 0.0


def test_an_open_set_image_is_always_wrong_and_of_no_true_class() -> None:
    true = torch.tensor([0, OPEN_SET, 2, OPEN_SET])
    examples = make(4, true_labels=true, labels=torch.tensor([0, 0, 1, 2]))
    assert examples.open_set is not None and examples.open_set.tolist() == [False, True, False, True]
    assert changed_share(true, examples.labels) == 0.75
    assert measure_transition(true, examples.labels, 3) == ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    assert examples.without_open_set().ids == ("id0", "id2")
    assert make(4).open_set is None and (plain := make(4)).without_open_set() is plain
    relabeled = examples.with_labels(torch.tensor([1, 1, 1, 1]))
    assert relabeled.true_labels is not None and torch.equal(relabeled.true_labels, true)
