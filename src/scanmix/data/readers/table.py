"""A CSV or Parquet table of images: columns `path` and `label`, optionally `split`, `decision` and `trusted`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scanmix.config import DataError
from scanmix.data.decisions import read_decided
from scanmix.data.examples import DECIDED, Examples
from scanmix.data.readers.folder import ListedImage, from_class_names
from scanmix.data.readers.pairs import Pair
from scanmix.files.cells import MISSING, as_text, one_name
from scanmix.files.tables import read_records

SPLITS = {
    "": "train", "train": "train", "training": "train", "test": "test", "val": "test", "validation": "test",
}  # fmt: skip
LINE_ENDS = ("\n", "\r")
OPTIONAL = ("split", "decision", "trusted")
"""Columns that a table may have."""


class Entry(NamedTuple):
    """A row of a table."""

    number: int
    """Number of the row below the header, from 1."""
    path: str
    label: str
    split: str
    decision: str
    """The decision of a person, in the words of `read_decided`."""

    @property
    def excluded(self) -> bool:
        """Whether a person has decided to leave the image out."""
        return self.decision == "exclude"


def read_table(
    table: Path, root: str | Path | None = None, size: int | None = None, least_classes: int = 2
) -> tuple[Examples, Examples | None]:
    """Read the images that a table names. Paths are relative to `root`, by default the folder of the table.

    Rows without a label, or with a word for a missing one such as "nan", are set aside like files that cannot be read.
    If there is a column `decision`, as `scanmix review` writes it, excluded rows are left out and the other decisions
    are stored in `Examples.decided`; so are labels that a column `trusted` marks as known to be right.

    Shape: images (N, 1 or 3, size, size) uint8.

    Raises:
        DataError: a column is missing, a file is named twice, a split or decision is unknown, or there are fewer
            classes than `least_classes`.
    """
    table = table.absolute()
    base = table.parent if root is None else Path(root).expanduser().absolute()
    records = read_records(table, required=("path", "label"), optional=OPTIONAL)
    entries = [read_entry(table, base, record, number) for number, record in enumerate(records, start=1)]
    train, test = read_entries(table, base, entries, size, least_classes)
    return with_decisions(train, base, entries) if has_decisions(records) else train, test


def read_entries(
    table: Path, base: Path, entries: list[Entry], size: int | None, least_classes: int, names: Iterable[str] = ()
) -> Pair:
    """Read the images of all rows but those that are excluded or have no label.

    Args:
        table: the file that the rows are of.
        base: folder that paths are relative to.
        entries: a row for each image.
        size: side of the images in pixels.
        least_classes: least number of classes.
        names: classes that exist besides those of the rows.

    Raises:
        DataError: as `read_table`.
    """
    _refuse_twice(table, base, entries)
    kept = [entry for entry in entries if not entry.excluded]
    _tell(table, entries)
    labeled = [entry for entry in kept if entry.label and entry.label not in MISSING]
    rows: dict[str, list[ListedImage]] = {"train": [], "test": []}
    for entry, label in zip(labeled, one_name([entry.label for entry in labeled]), strict=True):
        rows[entry.split].append((entry.path, base / entry.path, label))
    if len({label for _, _, label in rows["train"]}) < least_classes:
        raise DataError(
            f"{table} must name training images of at least {'two classes' if least_classes == 2 else 'one class'}."
        )
    unlabeled = [
        f"{base / entry.path}: " + (f"the label {entry.label!r} stands for none" if entry.label else "no label")
        for entry in kept if not entry.label or entry.label in MISSING
    ]  # fmt: skip
    return from_class_names(table.stem, rows["train"], rows["test"], size, tuple(unlabeled), names)


def has_decisions(records: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether rows have a column for what a person has said of their labels."""
    return any("decision" in record or "trusted" in record for record in records)


def with_decisions(examples: Examples, base: Path, entries: list[Entry]) -> Examples:
    """Return the examples with the decisions of a person and the excluded rows of the table."""
    words = {entry.path: entry.decision for entry in entries}
    codes = [DECIDED.index(words[name]) if words[name] in DECIDED else 0 for name in examples.ids]
    excluded = tuple((entry.path, str(base / entry.path), entry.label) for entry in entries if entry.excluded)
    return dataclasses.replace(examples, decided=torch.tensor(codes, dtype=torch.int8), excluded=excluded)


def cell_of(table: Path, record: Mapping[str, Any], column: str, number: int) -> str:
    """Return a cell as text; "" if the table has no such column.

    Raises:
        DataError: the cell, of a Parquet file, holds several values.
    """
    try:
        return as_text(record.get(column))
    except ValueError as error:
        raise DataError(f"row {number} of {table} has {error} as its {column}; one value is needed.") from None


def read_entry(table: Path, base: Path, record: Mapping[str, Any], number: int) -> Entry:
    """Return a row of a table.

    Raises:
        DataError: a cell is missing, unknown, or runs over a line end.
    """
    path, label, split, decision, trusted = (
        cell_of(table, record, column, number) for column in ("path", "label", *OPTIONAL)
    )
    if not path:
        raise DataError(f"row {number} of {table} has no path.")
    if split.lower() not in SPLITS:
        raise DataError(f"row {number} of {table} has split {split!r}; use train or test.")
    # One quotation mark too many joins several rows into one cell. But the name of a file may hold a line end.
    swallowed = _has_line_end(path) and not os.path.lexists(base / path)
    if swallowed or (_has_line_end(label) and "," in label):
        raise DataError(
            f"row {number} of {table} has a {'path' if swallowed else 'label'} that runs over a line end; look for a "
            "quotation mark without its end there."
        )
    return Entry(number, path, label, SPLITS[split.lower()], read_decided(decision, trusted, table, number))


def _has_line_end(text: str) -> bool:
    return any(end in text for end in LINE_ENDS)


def _refuse_twice(table: Path, base: Path, entries: list[Entry]) -> None:
    """Refuse a file that is named twice, in whatever way: as `a.png`, `./a.png` or `/folder/a.png`.

    It would count twice in training, or would be in training and in the test set.

    Raises:
        DataError: names the two rows.
    """
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(os.path.normpath(base / entry.path), entry)
        if first is entry:
            continue
        other = "" if first.path == entry.path else f" ({first.path})"
        parts = "" if first.split == entry.split else f", for {first.split} and for {entry.split}"
        raise DataError(
            f"{table} names {entry.path} twice, in rows {first.number}{other} and {entry.number}{parts}; keep one."
        )


def _tell(table: Path, entries: list[Entry]) -> None:
    """Warn of rows that are left out although their cells are filled."""
    excluded = sum(entry.excluded for entry in entries)
    if excluded:
        warnings.warn(
            f"{excluded} of {len(entries)} rows of {table} are left out: their decision is to exclude", stacklevel=4
        )
    missing = Counter(entry.label for entry in entries if entry.label in MISSING and not entry.excluded)
    if missing:
        words = ", ".join(sorted(missing))
        warnings.warn(
            f"{missing.total()} of {len(entries)} rows of {table} are set aside: their label ({words}) stands for a "
            "missing one; if it is a class, give that another name",
            stacklevel=4,
        )
