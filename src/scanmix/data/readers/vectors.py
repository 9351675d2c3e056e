"""Feature vectors in a `.npy` file, with their labels in a table or another `.npy`.

Legend: N examples, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from scanmix.config import DataError, UserError
from scanmix.data.decisions import read_trusted
from scanmix.data.examples import Examples
from scanmix.data.readers.folder import sort_names
from scanmix.data.readers.table import cell_of
from scanmix.files.cells import MISSING, one_name
from scanmix.files.npy import finite_rows, read_array, read_rows, row_names
from scanmix.files.tables import read_records

NAMED = 3
"""Number of rows that an error lists."""


@dataclass(frozen=True, eq=False)
class LabeledRows:
    """Feature vectors as they are in the file, each with its label.

    Attributes:
        vectors: (N, D) float32, not checked for infinite numbers and NaN.
        labels: N labels as texts.
        class_names: C names; each label is one of them.
        ids: N unique names.
        trusted: N booleans: which labels are known to be right; none if the labels came without that column.
        name: short name of the data set.
    """

    vectors: np.ndarray
    labels: list[str]
    class_names: tuple[str, ...]
    ids: list[str]
    trusted: list[bool]
    name: str

    def finite(self) -> LabeledRows:
        """Return the rows without infinite numbers and NaN, on which training is possible."""
        kept = finite_rows(self.vectors)
        labels, ids = list(compress(self.labels, kept)), list(compress(self.ids, kept))
        trusted = list(compress(self.trusted, kept))
        return replace(self, vectors=self.vectors[kept], labels=labels, ids=ids, trusted=trusted)

    def invalid_ids(self) -> tuple[str, ...]:
        """Return the ids of the rows with an infinite number or NaN."""
        return tuple(compress(self.ids, ~finite_rows(self.vectors)))

    def to_examples(self) -> Examples:
        """Return the rows as examples, labels as class numbers.

        Raises:
            UserError: a number is infinite or NaN.
        """
        number = {name: i for i, name in enumerate(self.class_names)}
        labels = [number[label] for label in self.labels]
        examples = to_vectors(self.vectors, labels, self.class_names, ids=self.ids, name=self.name)
        return examples.trusting(self.trusted) if any(self.trusted) else examples


def read_vectors(path: Path, labels: str | Path | None = None) -> Examples:
    """Read N vectors of D numbers and their labels; arguments as of `read_labeled_rows`.

    Shape: images (N, D, 1, 1) float32.

    Raises:
        UserError: a file is missing.
        DataError: as `read_labeled_rows`, or a number is infinite or NaN.
    """
    rows = read_labeled_rows(path, labels)
    invalid = rows.invalid_ids()
    if invalid:
        named = ", ".join(invalid[:NAMED]) + (", ..." if len(invalid) > NAMED else "")
        raise DataError(
            f"{path} has features that are infinite or not a number in {len(invalid)} of {len(rows.ids)} rows "
            f"({named}); repair or remove them."
        )
    return rows.to_examples()


def read_labeled_rows(path: Path, labels: str | Path | None = None) -> LabeledRows:
    """Read the rows of an array, their labels and their ids.

    Args:
        path: `.npy` of shape (N, D).
        labels: `.csv` or `.parquet` with a column `label`, `id` if rows have names, and `trusted` if some labels are
            known to be right; or `.npy` of N texts or whole numbers. By default the `.csv` of the same name.

    Raises:
        UserError: a file is missing.
        DataError: a file is not such an array or table, or the two differ in length.
    """
    vectors = read_rows(path)
    table = path.with_suffix(".csv") if labels is None else Path(labels).expanduser()
    if labels is None and not table.is_file():
        raise UserError(f"the labels of {path} are missing: name them with --labels, or put them into {table.name}.")
    given, ids, trusted = read_labels(table)
    if len(given) != len(vectors):
        raise DataError(f"{path} has {len(vectors)} rows, but {table} has {len(given)} labels.")
    if len(set(ids)) < len(ids):
        raise DataError(f"{table} has {len(ids)} rows, but {len(set(ids))} different ids.")
    return LabeledRows(
        vectors=vectors,
        labels=given,
        class_names=tuple(sort_names(set(given))),
        ids=ids or row_names(path, len(given)),
        trusted=trusted,
        name=path.stem,
    )


def to_vectors(
    vectors: np.ndarray, labels: Sequence[int], class_names: Sequence[str], *, ids: Sequence[str], name: str
) -> Examples:
    """Make examples of feature vectors. Shape: (N, D) of any number type -> images (N, D, 1, 1) float32.

    Raises:
        UserError: a number is infinite or NaN in float32, or the parts do not fit together.
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(vectors, dtype=np.float32)
    return Examples(
        images=torch.from_numpy(stored)[:, :, None, None],
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=tuple(class_names),
        ids=tuple(ids),
        name=name,
        flip=False,
    )


class ReadLabels(NamedTuple):
    """What a file says of the rows of an array."""

    labels: list[str]
    """N texts."""
    ids: list[str]
    """N names; none if the file has none."""
    trusted: list[bool]
    """Which of the N labels are known to be right; none if the file does not say."""


def read_labels(path: Path) -> ReadLabels:
    """Return the labels in a table or a `.npy` as texts, the ids, and which labels are known to be right.

    Raises:
        UserError: the file is missing, or is of a review.
        DataError: it is not such an array or table, or a label is missing.
    """
    if path.suffix.lower() == ".npy":
        array = read_array(path)
        if array.ndim != 1 or array.dtype.kind not in "iuUb":
            raise DataError(f"{path} must hold one text or whole number for each row, not {array.dtype} {array.shape}.")
        return ReadLabels(_checked([str(label) for label in array.tolist()], path), [], [])
    records = read_records(path, required=("label",), optional=("id", "decision", "trusted"))
    if any("decision" in record for record in records):
        raise UserError(f"{path} is of a review, in another order than the rows; copy its labels into the label file.")
    labels = [cell_of(path, record, "label", number) for number, record in enumerate(records, start=1)]
    ids = [cell_of(path, record, "id", number) for number, record in enumerate(records, start=1) if "id" in record]
    cells = [
        cell_of(path, record, "trusted", number) for number, record in enumerate(records, 1) if "trusted" in record
    ]
    trusted = [read_trusted(cell, path, number) for number, cell in enumerate(cells, start=1)]
    return ReadLabels(_checked(labels, path), ids, trusted)


def _checked(labels: list[str], path: Path) -> list[str]:
    """Return labels so that each class has one name.

    Raises:
        DataError: a label is missing; a row cannot be left out, because labels belong to vectors by their order.
    """
    for number, label in enumerate(labels, start=1):
        if not label:
            raise DataError(f"row {number} of {path} has no label.")
        if label in MISSING:
            raise DataError(
                f"row {number} of {path} has the label {label!r}, which stands for a missing one; remove the row here "
                "and from the vectors, or give the class another name."
            )
    return one_name(labels)
