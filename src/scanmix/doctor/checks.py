"""Checks of examples and labels before training: each finding says what to do about it.

Legend: N examples, C classes.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from scanmix.data.duplicates import exact_groups, near_groups
from scanmix.data.examples import Examples, Kind
from scanmix.data.readers.images import Header
from scanmix.data.readers.vectors import LabeledRows
from scanmix.data.views.feature_views import feature_spread
from scanmix.progress import Tick

TINY_CLASS = 10
"""A class with fewer examples is too small to be learned from labels of which some are wrong."""
LOPSIDED = 20
"""Ratio of the largest class to the smallest from which sizes are reported."""
DULL = 16
"""An image that uses fewer of the 256 shades is nearly black, nearly white or evenly gray."""
HUGE, HUGE_AMONG, HUGE_TIMES = 25_000_000, 1_000_000, 100
"""An image is huge with the first number of pixels, or with the second if that is also `HUGE_TIMES` the median."""
NEAR_UP_TO = 100_000
"""Most images among which near copies are searched: every pair is compared, which takes minutes for this many."""
LONG = 3
"""Ratio of the sides of an image above which most of it is cut off."""
SCALES = 1000
"""Ratio of the standard deviations of two features from which scales are reported."""
ONE: Mapping[Kind, str] = {"image": "an image", "vector": "a vector"}

SEPARATORS = re.compile(r"[,;|/+&]| and ")
"""Separators of several labels in one cell."""

Level = Literal["fault", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """A problem of a data set.

    Attributes:
        level: "fault" prevents training, "warning" should be checked before it, "note" is for information.
        what: the problem in words, with a count.
        where: all classes or files that have it.
        fix: what to do.
    """

    level: Level
    what: str
    where: tuple[str, ...]
    fix: str


def check_classes(train: Examples, test: Examples | None = None) -> list[Finding]:
    """Find classes that are empty or tiny, that differ much in size, or that have no test example."""
    one, many = ONE[train.kind], f"{train.kind}s"
    counts = class_counts(train)
    filled = {name: count for name, count in counts.items() if count}
    if len(filled) < 2:
        what = f"{number(len(filled), 'class', 'es')} with {many} that can be read; training needs two"
        return [Finding("fault", what, tuple(filled), f"add {many} of another class, or repair those that are there")]
    found = []
    if len(filled) < len(counts):
        empty = tuple(name for name in counts if name not in filled)
        what = f"{len(empty)} of {len(counts)} classes without {one} that can be read"
        found.append(Finding("warning", what, empty, f"repair the {many}, or remove the class"))
    tiny = tuple(f"{name} ({count})" for name, count in filled.items() if count < TINY_CLASS)
    if tiny:
        what = f"{number(len(tiny), 'class', 'es')} with fewer than {TINY_CLASS} {many}"
        found.append(Finding("warning", what, tiny, f"add {many}, join it with another class, or leave it out"))
    least, most = min(filled, key=filled.__getitem__), max(filled, key=filled.__getitem__)
    if filled[most] >= LOPSIDED * filled[least]:
        where = (f"{most} ({filled[most]})", f"{least} ({filled[least]})")
        what = f"the largest class has {filled[most] // filled[least]} times the {many} of the smallest"
        fix = "judge by accuracy class by class (scanmix evaluate); --per-class N evens the classes out"
        found.append(Finding("warning", what, where, fix))
    if test is not None:
        untested = tuple(name for name, count in class_counts(test).items() if not count and filled.get(name))
        if untested:
            what = f"{number(len(untested), 'class', 'es')} without a test {train.kind}"
            found.append(Finding("note", what, untested, f"accuracy will say nothing about it; add test {many}"))
    return found


def class_counts(examples: Examples) -> dict[str, int]:
    """Return how many examples each class has, by its name, in the order of the classes."""
    counts = examples.labels.bincount(minlength=examples.num_classes).tolist()
    return dict(zip(examples.class_names, counts, strict=True))


def check_names(class_names: Sequence[str]) -> list[Finding]:
    """Find class names that differ only by letter case, blanks or Unicode form, and names that list other classes."""
    alike: dict[str, list[str]] = {}
    for name in class_names:
        plain = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()
        alike.setdefault(plain, []).append(name)
    known = {name.strip().casefold() for name in class_names}
    joined = tuple(repr(name) for name in class_names if _lists_others(name, known))
    what = f"{number(len(joined), 'class', 'es')} whose name lists other classes"
    fix = "an image has one label: choose one for each image, if several are meant"
    found = [Finding("note", what, joined, fix)] if joined else []
    return found + [
        Finding(
            "warning", "class names that differ only by letter case or blanks", tuple(map(repr, names)),
            "they are trained as different classes; give them one name if they are one",
        )
        for names in alike.values() if len(names) > 1
    ]  # fmt: skip


def _lists_others(name: str, known: set[str]) -> bool:
    """Return whether a name consists of two or more known names: "cat,dog"."""
    parts = [part.strip().casefold() for part in SEPARATORS.split(name) if part.strip()]
    return len(parts) > 1 and known.issuperset(parts)


SKIPPED = (
    ("cut short", ("truncated", "broken data stream", "unexpected end"), "copy or download them again"),
    ("missing", ("no such file",), "correct the table, or say with --root what its paths are relative to"),
    ("never opened", ("a file is needed",), "name image files; folders, pipes and devices are never opened"),
    ("without a label", ("no label",), "label them, or leave them out of the table"),
    ("too huge to be decoded", ("exceeds limit",), "scale them down"),
    ("of unknown brightness", ("bit pixels", "bit colors", "floating point"), "save them as 8 bit, 0 to 255"),
    ("unreadable", ("",), "replace or remove them"),
)
"""Groups of files that are skipped: name, words in the reason, what to do. A file is in the first that fits."""


def check_skipped(skipped: Iterable[str]) -> list[Finding]:
    """Group files that were skipped while reading by what is wrong; each line is "path: reason"."""
    kinds: dict[str, list[str]] = {}
    for line in skipped:
        reason = line.rpartition(": ")[2].lower()
        kind = next(name for name, words, _ in SKIPPED if any(word in reason for word in words))
        kinds.setdefault(kind, []).append(line)
    return [
        Finding("warning", f"{number(len(kinds[name]), 'file')} {name}", tuple(kinds[name]), f"{fix}; left out so far")
        for name, _, fix in SKIPPED if name in kinds
    ]  # fmt: skip


def check_headers(ids: Sequence[str], headers: Sequence[Header], labels: Sequence[str], side: int) -> list[Finding]:
    """Find files that are huge, small or long, and mixtures of gray, color and transparent images.

    Args:
        ids: name of each file.
        headers: header of each file.
        labels: class of each file.
        side: pixels of a side to which all are scaled.
    """
    if not headers:
        return []
    pixels = [header.width * header.height for header in headers]
    shorter = [min(header.width, header.height) for header in headers]
    longer = [max(header.width, header.height) for header in headers]
    middle, often = int(statistics.median(shorter)), statistics.median(pixels)
    huge = [count >= HUGE or (count >= HUGE_AMONG and count > HUGE_TIMES * often) for count in pixels]
    small = [2 * length < side for length in shorter]
    long = [most > LONG * least for most, least in zip(longer, shorter, strict=True)]
    sizes = [f"{name} ({header.width}x{header.height})" for name, header in zip(ids, headers, strict=True)]
    found: list[Finding] = []
    for mask, what, fix in (
        (huge, "far larger than is of use", f"scale down: slow to read, and only {side} pixels a side are kept"),
        (small, f"with a side of less than half of the {side} pixels used", "replace by larger ones, or use --size"),
        (long, f"with one side over {LONG} times the other", "crop: only the square in the middle is seen"),
    ):
        where = tuple(size for size, wanted in zip(sizes, mask, strict=True) if wanted)
        found += [Finding("warning", f"{number(len(where), 'image')} {what}", where, fix)] if where else []
    if middle >= 4 * side:
        what = f"half of the files have {middle} pixels a side or more, of which {side} are kept"
        fix = f"if classes differ in small things, use --size {2 * side}; four times the time"
        found.append(Finding("note", what, (), fix))
    return found + _check_kinds(ids, headers, labels)


def check_rows(rows: LabeledRows) -> list[Finding]:
    """Find feature vectors with infinite or missing numbers."""
    where = rows.invalid_ids()
    what = f"{number(len(where), 'vector')} with infinite or missing numbers"
    return [Finding("fault", what, where, "repair or remove them")] if where else []


def check_columns(train: Examples) -> list[Finding]:
    """Find features that are the same in all vectors, and scales that are far apart."""
    spread = feature_spread(train.images.flatten(1))[1]
    found = []
    still = tuple(f"column {column}" for column in (spread == 0).nonzero().squeeze(1).tolist())
    if still:
        what = f"{len(still)} of {train.channels} features the same in all vectors"
        found.append(Finding("warning", what, still, "leave them out, or look why: nothing can be learned from them"))
    varied = spread.where(spread > 0, torch.inf)
    most, least = int(spread.argmax()), int(varied.argmin())
    if spread[most] >= SCALES * varied[least]:
        what = f"the largest deviation of a feature is {float(spread[most] / varied[least]):,.0f} times the smallest"
        where = tuple(f"column {column} ({float(spread[column]):.3g})" for column in (most, least))
        fix = "nothing, if both mean something: each is standardized and counts alike; leave out what is but noise"
        found.append(Finding("note", what, where, fix))
    return found


def check_blank(examples: Examples) -> list[Finding]:
    """Find images of a single color, and vectors of a single number."""
    flat = examples.images.flatten(1)
    if flat.shape[1] == 1:  # a single feature is always "a single number"
        return []
    blank = (flat.amin(1) == flat.amax(1)).nonzero().squeeze(1).tolist()
    where = tuple(examples.ids[place] for place in blank)
    alike = "of one single color" if examples.kind == "image" else "with the same number in every column"
    what = f"{number(len(where), examples.kind)} {alike}"
    return [Finding("warning", what, where, "look whether something went wrong when they were made")] if where else []


def check_dull(examples: Examples) -> list[Finding]:
    """Find images that use less than a sixteenth of the range from black to white; `check_blank` finds flat ones."""
    if examples.kind != "image":
        return []
    parts = [part.flatten(2) for part in examples.images.split(4096)]
    low, high = (torch.cat([edge(part, 2) for part in parts]).int() for edge in (torch.amin, torch.amax))
    dull = ((high - low).amax(1) < DULL) & (low.amin(1) < high.amax(1))
    where = tuple(
        f"{examples.ids[i]} ({int(low[i].min())} to {int(high[i].max())} of 255)" for i in dull.nonzero()[:, 0].tolist()
    )
    what = f"{number(len(where), 'image')} nearly black or of nearly one shade"
    fix = "look at them; if they came from 10, 12 or 16 bits, save them anew with white at 255"
    return [Finding("warning", what, where, fix)] if where else []


def check_duplicates(train: Examples, test: Examples | None = None, tick: Tick | None = None) -> list[Finding]:
    """Find copies: under two labels, in training and test data, or within the training data.

    For images, near copies count as well; the search for them reports progress through `tick(done, total, note)`.
    """
    parts = [train] if test is None else [train, test]
    images = [part.images for part in parts]
    ids = [name for part in parts for name in part.ids]
    labels = [part.class_names[label] for part in parts for label in part.labels.tolist()]
    searches = {"exact": exact_groups(*images)}
    found: list[Finding] = []
    if train.kind == "image":
        if len(ids) <= NEAR_UP_TO:
            searches["near"] = near_groups(torch.cat(images), tick)
        else:
            what = f"near copies were not searched among more than {NEAR_UP_TO} images"
            found.append(Finding("note", what, (), "nothing; exact copies were searched"))
    for closeness, groups in searches.items():
        sorts: dict[str, list[list[int]]] = {}
        for group in groups:
            two_labels = len({labels[place] for place in group}) > 1
            both_parts = min(group) < len(train) <= max(group)
            sorts.setdefault("labels" if two_labels else "parts" if both_parts else "copies", []).append(group)
        for sort, level, what, fix in DUPLICATES:
            where = tuple(" = ".join(f"{ids[i]} ({labels[i]})" for i in group) for group in sorts.get(sort, ()))
            if where:
                counted = f"{number(len(where), train.kind)} {what} ({closeness} copies)"
                found.append(Finding(level, counted, where, fix))
    return found


DUPLICATES: tuple[tuple[str, Level, str, str], ...] = (
    ("labels", "warning", "under two labels", "correct one of the labels, or remove both"),
    ("parts", "warning", "for training and for test", "take it out of training; accuracy on it means nothing"),
    ("copies", "note", "twice or more", "keep one, unless it shall count more than others"),
)


def number(count: int, noun: str, plural: str = "s") -> str:
    """Return a count with its noun: "1 file", "2 files"."""
    return f"{count} {noun}{plural if count != 1 else ''}"


def _check_kinds(ids: Sequence[str], headers: Sequence[Header], labels: Sequence[str]) -> list[Finding]:
    """Find mixtures of gray, color and transparent files; worse if each class has one kind of its own."""
    kinds = ["transparent" if header.transparent else "gray" if header.gray else "color" for header in headers]
    counts = Counter(kinds).most_common()
    if len(counts) == 1:
        return []
    usual = counts[0][0]
    where = tuple(f"{name} ({kind})" for name, kind in zip(ids, kinds, strict=True) if kind != usual)
    what = "files of different kinds: " + ", ".join(f"{count} {kind}" for kind, count in counts)
    if len(set(zip(labels, kinds, strict=True))) == len(set(labels)):
        fix = "each class has one kind: make them alike, or that is what will be learned"
        return [Finding("warning", what, where, fix)]
    fix = "nothing, if it has no meaning: all become color, on white where they are transparent"
    return [Finding("warning" if "transparent" in kinds else "note", what, where, fix)]
