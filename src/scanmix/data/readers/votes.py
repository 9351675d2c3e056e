"""Tables in which several annotators have labeled each image.

Either a column for each annotator, `label_1`, `label_2` and so on, in place of `label`; or a row for each vote, with
the columns `path`, `label` and `annotator`. Empty cells, and words for a missing value such as "nan", are no vote.

Legend: N images, A annotators.
"""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from scanmix.config import DataError
from scanmix.data.examples import NO_VOTE, Examples
from scanmix.data.readers.folder import sort_names
from scanmix.data.readers.table import OPTIONAL, Entry, cell_of, has_decisions, read_entries, read_entry, with_decisions
from scanmix.files.cells import MISSING, one_name
from scanmix.files.tables import columns_of, read_records

COLUMN = re.compile(r"label_(\d+)", re.ASCII)
ANNOTATOR = "annotator"

Votes = dict[str, dict[str, str]]
"""Path of an image -> annotator -> label."""


class VoteTable(NamedTuple):
    """The votes of a table, before its images are read."""

    entries: list[Entry]
    """One for each image; its label is not set."""
    votes: Votes
    annotators: tuple[str, ...]
    decided: bool
    """Whether the table has decisions of a person."""


def has_votes(table: Path) -> bool:
    """Return whether a table has a column for each annotator, or a row for each vote.

    Raises:
        UserError: pyarrow is missing, which Parquet needs.
    """
    columns = columns_of(table)
    several = [name for name in columns if COLUMN.fullmatch(name)]
    if "label" in columns and len(several) > 1:
        warnings.warn(
            f"the column label of {table} is read, and {', '.join(several)} are not; if these are votes, "
            "leave label out",
            stacklevel=3,
        )
    return bool(several) if "label" not in columns else ANNOTATOR in columns


def read_votes(
    table: Path, root: str | Path | None = None, size: int | None = None, least_classes: int = 2
) -> tuple[Examples, Examples | None]:
    """Read images and the votes on them; arguments as of `read_table`.

    The given label of an image is the class with the most votes; of several the first in the order of class names. An
    image without a vote is set aside. Classes are all that occur among the votes on training images. Votes on test
    images give their label and are not kept. Where no image has two votes, none are kept.

    Memory grows with N x A. Shape: images (N, 1 or 3, size, size) uint8, votes (N, A) int64.

    Raises:
        DataError: as `read_table`; or an annotator voted twice on an image, or has no name.
    """
    table = table.absolute()
    base = table.parent if root is None else Path(root).expanduser().absolute()
    wide = "label" not in columns_of(table)
    found = (_by_column if wide else _by_row)(table, base)
    votes = _one_name(found.votes)
    classes = sort_names({label for each in votes.values() for label in each.values()})
    entries = [entry._replace(label=_majority(votes[entry.path].values(), classes)) for entry in found.entries]
    kept = {entry.path for entry in entries if entry.split == "train" and not entry.excluded}
    names = {label for path in kept for label in votes[path].values()}
    train, test = read_entries(table, base, entries, size, least_classes, names)
    if found.decided:
        train = with_decisions(train, base, entries)
    return _with_votes(train, votes, found.annotators), test


def _with_votes(examples: Examples, votes: Votes, annotators: Sequence[str]) -> Examples:
    """Return the examples with their votes, if any example has two."""
    if not any(len(votes[name]) > 1 for name in examples.ids):
        return examples
    class_of = {name: i for i, name in enumerate(examples.class_names)}
    column = {name: i for i, name in enumerate(annotators)}
    cells = torch.full((len(examples), len(annotators)), NO_VOTE)
    for row, name in enumerate(examples.ids):
        for annotator, label in votes[name].items():
            cells[row, column[annotator]] = class_of[label]
    return dataclasses.replace(examples, votes=cells, annotators=tuple(annotators))


def _by_column(table: Path, base: Path) -> VoteTable:
    """Read a table with a column for each annotator; the columns are the annotators' names."""
    columns = sorted((name for name in columns_of(table) if COLUMN.fullmatch(name)), key=lambda name: int(name[6:]))
    records = read_records(table, required=("path", *columns[:1]), optional=(*OPTIONAL, *columns[1:]))
    entries, votes = [], Votes()
    for number, record in enumerate(records, start=1):
        entry = read_entry(table, base, {**record, "label": None}, number)
        cells = {column: cell_of(table, record, column, number) for column in columns}
        votes[entry.path] = {column: cell for column, cell in cells.items() if _is_vote(cell)}
        entries.append(entry)
    return VoteTable(entries, votes, tuple(columns), has_decisions(records))


def _by_row(table: Path, base: Path) -> VoteTable:
    """Read a table with a row for each vote.

    Raises:
        DataError: two rows are votes of one annotator on one image, or differ in what they say of the image.
    """
    records = read_records(table, required=("path", "label", ANNOTATOR), optional=OPTIONAL)
    first: dict[str, Entry] = {}
    rows: dict[tuple[str, str], int] = {}
    votes = Votes()
    for number, record in enumerate(records, start=1):
        entry = read_entry(table, base, record, number)
        annotator = cell_of(table, record, ANNOTATOR, number)
        if not annotator:
            raise DataError(f"row {number} of {table} has no annotator.")
        known = first.setdefault(os.path.normpath(base / entry.path), entry)
        if (known.split, known.decision) != (entry.split, entry.decision):
            raise DataError(
                f"rows {known.number} and {number} of {table} are both of {known.path} and differ in split, "
                "decision or trusted; make them alike."
            )
        before = rows.setdefault((known.path, annotator), number)
        if before != number:
            raise DataError(
                f"rows {before} and {number} of {table} are both votes of {annotator!r} on {known.path}; keep one."
            )
        votes.setdefault(known.path, {})
        if _is_vote(entry.label):
            votes[known.path][annotator] = entry.label
    annotators = sort_names({annotator for _, annotator in rows})
    return VoteTable(list(first.values()), votes, annotators, has_decisions(records))


def _is_vote(cell: str) -> bool:
    return bool(cell) and cell not in MISSING


def _one_name(votes: Votes) -> Votes:
    """Return the votes so that each class has one name."""
    said = [(path, annotator, label) for path, each in votes.items() for annotator, label in each.items()]
    found: Votes = {path: {} for path in votes}
    for (path, annotator, _), label in zip(said, one_name([label for *_, label in said]), strict=True):
        found[path][annotator] = label
    return found


def _majority(labels: Iterable[str], classes: Sequence[str]) -> str:
    """Return the most frequent label, of several the first of `classes`; "" if there is none."""
    counts: Mapping[str, int] = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], classes.index(label)), default="")
