"""Feature vectors in a `.npy` file, their labels in a table or another `.npy` beside it.

Legend: N examples, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scanmix.config import UserError
from scanmix.data.arrays import read_array
from scanmix.data.examples import Examples
from scanmix.data.readers.folder import sort_names
from scanmix.data.readers.table import as_text
from scanmix.data.records import read_records


def read_vectors(path: Path, labels: str | Path | None = None) -> Examples:
    """Read N vectors of D numbers and a label for each.

    Args:
        path: `.npy` of shape (N, D).
        labels: `.csv` or `.parquet` with a column `label`, and `id` where rows have names; or `.npy` of N texts or
            whole numbers. By default the file of the same name that ends in `.csv`.

    Shape: images (N, D, 1, 1) float32.

    Raises:
        UserError: a file is missing, is no such array or table, or the two differ in length.
    """
    vectors = read_array(path)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiub":
        raise UserError(f"{path} must hold numbers of shape (N, features), not {vectors.dtype} of {vectors.shape}.")
    table = path.with_suffix(".csv") if labels is None else Path(labels).expanduser()
    if labels is None and not table.is_file():
        raise UserError(f"the labels of {path} are missing: name them with --labels, or put them into {table.name}.")
    given, ids = _read_labels(table)
    if len(given) != len(vectors):
        raise UserError(f"{path} has {len(vectors)} rows, but {table} has {len(given)} labels.")
    names = sort_names(set(given))
    number = {name: i for i, name in enumerate(names)}
    return to_vectors(
        vectors, [number[name] for name in given], names,
        ids=ids or [f"{path.stem}/{row}" for row in range(len(given))], name=path.stem,
    )  # fmt: skip


def to_vectors(
    vectors: np.ndarray, labels: Sequence[int], class_names: Sequence[str], *, ids: Sequence[str], name: str
) -> Examples:
    """Make examples of feature vectors. Shape: (N, D) of any number type, N class numbers.

    Raises:
        UserError: a number is infinite or missing in float32, or the parts do not fit together.
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


def _read_labels(path: Path) -> tuple[list[str], list[str]]:
    """Labels as text, and ids where there are any."""
    if path.suffix.lower() == ".npy":
        array = read_array(path)
        if array.ndim != 1 or array.dtype.kind not in "iuUb":
            raise UserError(f"{path} must hold one text or whole number for each row, not {array.dtype} {array.shape}.")
        return [str(label) for label in array.tolist()], []
    records = read_records(path, required=("label",), optional=("id", "decision"))
    if any("decision" in record for record in records):
        raise UserError(f"{path} is of a review, in another order than the rows; copy its labels into the label file.")
    labels = [as_text(record["label"]) for record in records]
    if "" in labels:
        raise UserError(f"row {labels.index('') + 1} of {path} has no label.")
    return labels, [as_text(record["id"]) for record in records if "id" in record]
