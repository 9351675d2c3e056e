"""Each oddity is found, named with its place and a remedy; what is in order is not spoken of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from scanmix.data.examples import Examples
from scanmix.data.readers.images import Header
from scanmix.doctor.checks import (
    Finding,
    check_blank,
    check_classes,
    check_dull,
    check_duplicates,
    check_headers,
    check_names,
    check_skipped,
    class_counts,
)


def made(labels: list[int], names: str = "ab", seed: int = 0, prefix: str = "") -> Examples:
    draws = torch.Generator().manual_seed(seed)
    return Examples(
        images=torch.randint(0, 256, (len(labels), 1, 8, 8), generator=draws, dtype=torch.uint8),
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=tuple(names),
        ids=tuple(f"{prefix}{i}" for i in range(len(labels))),
    )


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    assert finding.fix and not finding.what.endswith(".")
    return finding


def test_classes_in_order() -> None:
    train = made([0] * 10 + [1] * 199)
    assert check_classes(train) == [] == check_classes(train, made([0, 1]))
    assert class_counts(train) == {"a": 10, "b": 199}


@pytest.mark.parametrize("labels", [[0] * 30, []])
def test_less_than_two_classes_with_images_is_a_fault(labels: list[int]) -> None:
    finding = only(check_classes(made(labels)))
    assert finding.level == "fault" and finding.where == (("a",) if labels else ())


def test_empty_tiny_lopsided_and_untested_classes() -> None:
    empty, tiny, lopsided = check_classes(made([0] * 40 + [2] * 2, "abc"))
    assert (empty.where, tiny.where, lopsided.where) == (("b",), ("c (2)",), ("a (40)", "c (2)"))
    assert "20 times" in lopsided.what and {empty.level, tiny.level, lopsided.level} == {"warning"}
    assert check_classes(made([0] * 39 + [1] * 10))[:] == []
    untested = only(check_classes(made([0] * 10 + [1] * 10), made([1])))
    assert (untested.level, untested.where) == ("note", ("a",))


@pytest.mark.parametrize(
    "names",
    [("cat", "Cat"), ("cat", "cat "), ("hot dog", "hot  dog"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "straße")],
)
def test_names_that_look_the_same(names: tuple[str, ...]) -> None:
    finding = only(check_names(("other", *names, "-1", "1")))
    assert finding.where == tuple(map(repr, names))


def test_names_that_differ() -> None:
    assert check_names(("cat", "cats", "1", "-1", "01")) == []


@pytest.mark.parametrize("name", ["cat,dog", "cat, DOG", "dog|cat|owl", "cat and dog", "cat; dog;"])
def test_names_that_list_others(name: str) -> None:
    finding = only(check_names(("cat", "dog", "owl", name)))
    assert (finding.level, finding.where) == ("note", (repr(name),)) and "1 class whose name lists" in finding.what


@pytest.mark.parametrize("name", ["cat,cow", "cat,", "salt and pepper", "dogcat", "T-shirt/top"])
def test_names_that_list_nothing_known(name: str) -> None:
    assert check_names(("cat", "dog", "pepper", name)) == []


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("image file is truncated (1 bytes not processed)", "1 file cut short"),
        ("broken data stream when reading image file", "1 file cut short"),
        ("not an image", "1 file unreadable"),
        ("no such file", "1 file missing"),
        ("no label", "1 file without a label"),
        ("Image size (200000000 pixels) exceeds limit of 178956970 pixels", "1 file too huge to be decoded"),
        ("something unheard of", "1 file unreadable"),
        ("16 bit pixels from 0 to 4095, of which white cannot be told; save", "1 file of unknown brightness"),
        ("floating point pixels from -3 to 4096; save", "1 file of unknown brightness"),
        ("a named pipe; a file is needed", "1 file never opened"),
    ],
)
def test_files_set_aside_are_sorted_by_what_is_wrong(reason: str, what: str) -> None:
    line = f"truncated: no label/no such file.png: {reason}"
    finding = only(check_skipped([line]))
    assert (finding.what, finding.where, finding.level) == (what, (line,), "warning")


def test_kinds_of_files_set_aside_are_counted() -> None:
    found = check_skipped(["a: no label", "b: not an image", "c: not an image"])
    assert [finding.what for finding in found] == ["1 file without a label", "2 files unreadable"]
    assert check_skipped([]) == []


def header(width: int = 24, height: int = 24, mode: str = "RGB", transparent: bool = False) -> Header:
    return Header(width, height, mode, transparent)


def headed(*odd: Header, labels: str = "", side: int = 24) -> list[Finding]:
    """Findings of nine ordinary files of class a, then odd ones."""
    headers = [header()] * 9 + list(odd)
    return check_headers([str(i) for i in range(len(headers))], headers, labels or "a" * len(headers), side)


@pytest.mark.parametrize(
    ("odd", "words", "where"),
    [
        (header(5000, 5000), "far larger", "9 (5000x5000)"),
        (header(1000, 1200), "far larger", "9 (1000x1200)"),
        (header(11, 24), "less than half", "9 (11x24)"),
        (header(24, 73), "over 3 times", "9 (24x73)"),
        (header(mode="L"), "9 color, 1 gray", "9 (gray)"),
        (header(mode="RGBA", transparent=True), "9 color, 1 transparent", "9 (transparent)"),
        (header(mode="P", transparent=True), "9 color, 1 transparent", "9 (transparent)"),
    ],
)
def test_odd_files(odd: Header, words: str, where: str) -> None:
    finding = only(headed(odd))
    assert words in finding.what and finding.where == (where,)


@pytest.mark.parametrize("fine", [header(900, 1000), header(12, 24), header(24, 72), header(mode="P"), header()])
def test_files_that_are_not_odd(fine: Header) -> None:
    assert headed(fine) == []


def test_large_files_are_not_huge_among_their_like() -> None:
    photographs = [header(4000, 3000)] * 5
    found = check_headers(list("abcde"), photographs, "aabbb", 64)
    assert only(found).level == "note" and "3000 pixels" in found[0].what
    assert check_headers([], [], [], 32) == []


def test_a_kind_for_each_class_is_worse_than_a_mixture() -> None:
    gray = [header(mode="L")] * 3
    assert only(headed(*gray, labels="a" * 9 + "aab")).level == "note"
    told = only(headed(*gray, labels="a" * 9 + "bbb"))
    assert told.level == "warning" and "each class has one kind" in told.fix


def test_images_of_one_color() -> None:
    train = made([0, 1, 0])
    assert check_blank(train) == []
    train.images[1] = 200
    assert only(check_blank(train)).where == ("1",)


def test_images_that_use_little_of_the_range() -> None:
    train = made([0, 1, 0, 1])
    assert check_dull(train) == []
    train.images[1] //= 17  # 0 to 15, as 12 bits in 16 were
    train.images[2] = 240 + train.images[2] // 17
    train.images[3] = 7  # of one number: told by check_blank
    finding = only(check_dull(train))
    low, high = int(train.images[1].min()), int(train.images[1].max())
    assert finding.where[0] == f"1 ({low} to {high} of 255)" and [place[0] for place in finding.where] == ["1", "2"]
    assert (finding.level, finding.what) == ("warning", "2 images nearly black or of nearly one shade")


def test_a_color_of_one_shade_is_dull_and_a_full_range_in_one_channel_is_not() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, 2] = 200
    images[1, 2, 0] = 200
    train = Examples(images, torch.tensor([0, 1]), ("a", "b"), ("0", "1"))
    assert only(check_dull(train)).where == ("0 (0 to 200 of 255)",)


def twice(train: Examples, test: Examples | None, *pairs: tuple[int, int], change: int = 0) -> list[Finding]:
    """Findings after copying images over others, one pixel changed; test images are numbered on."""
    both = [*train.images, *([] if test is None else test.images)]
    for first, second in pairs:
        both[second][:] = both[first]
        both[second][0, 0, 0] = int(both[first][0, 0, 0]) ^ change
    return check_duplicates(train, test)


@pytest.mark.parametrize(("change", "kind"), [(0, "exact"), (8, "near")])
def test_pictures_that_stand_twice(change: int, kind: str) -> None:
    labels, copies = twice(made([0, 1, 0, 1, 1]), None, (0, 1), (3, 4), change=change)
    assert labels == Finding("warning", f"1 image under two labels ({kind} copies)", ("0 (a) = 1 (b)",), labels.fix)
    assert copies == Finding("note", f"1 image twice or more ({kind} copies)", ("3 (b) = 4 (b)",), copies.fix)
    train, test = made([0, 1, 0]), made([0, 1], seed=1, prefix="test/")
    both = only(twice(train, test, (0, 3), change=change))
    assert both == Finding(
        "warning", f"1 image for training and for test ({kind} copies)", ("0 (a) = test/0 (a)",), both.fix
    )


def test_pictures_that_stand_once() -> None:
    told: list[Any] = []
    assert check_duplicates(made([0, 1] * 20), made([0, 1], seed=1), lambda *far: told.append(far)) == []
    assert told[-1] == (42, 42, "")
