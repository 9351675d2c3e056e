"""A CSV or Parquet table with the columns `path` and `label`, and `split` where there is a test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scanmix.config import DataError
from scanmix.data.examples import Examples
from scanmix.data.readers.folder import Row, to_examples
from scanmix.data.records import read_records

SPLITS = {
    "": "train", "train": "train", "training": "train", "test": "test", "val": "test", "validation": "test",
}  # fmt: skip


def read_table(
    table: Path, root: str | Path | None = None, size: int | None = None, least_classes: int = 2
) -> tuple[Examples, Examples | None]:
    """Read the images a table names. Paths are relative to `root`, by default the folder of the table.

    Rows without a label are set aside with the unreadable files.

    Shape: images (N, 1 or 3, size, size) uint8.

    Raises:
        DataError: if a column is missing, a path stands twice, a split is unknown, or there are fewer classes
            than `least_classes`.
    """
    table = table.absolute()
    base = table.parent if root is None else Path(root).expanduser().absolute()
    records = read_records(table, required=("path", "label"), optional=("split",))
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    seen: dict[str, int] = {}
    unlabeled: list[str] = []
    for number, record in enumerate(records, start=1):
        path, label = as_text(record["path"]), as_text(record["label"])
        split = SPLITS.get(as_text(record.get("split")).lower())
        if not path:
            raise DataError(f"row {number} of {table} has no path.")
        if path in seen:
            raise DataError(f"{table} names {path} twice, in rows {seen[path]} and {number}; keep one.")
        if split is None:
            raise DataError(f"row {number} of {table} has split {record.get('split')!r}; use train or test.")
        seen[path] = number
        if label:
            rows[split].append((path, base / path, label))
        else:
            unlabeled.append(f"{base / path}: no label")
    if len({label for _, _, label in rows["train"]}) < least_classes:
        raise DataError(
            f"{table} must name training images of at least {'two classes' if least_classes == 2 else 'one class'}."
        )
    return to_examples(table.stem, rows["train"], rows["test"], size, tuple(unlabeled))


def as_text(value: Any) -> str:
    """A label as text: 3.0, which is how tables with gaps store 3, is 3; missing is empty."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
