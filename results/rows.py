"""The csv of a long experiment: a row is appended as soon as it is known, and what is there is not measured again."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from scanmix.files import append_text, write_text


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows that are known already, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, fields: Sequence[str], cells: Iterable[str]) -> None:
    """Append a row, and before the first one the names of its fields."""
    if not path.is_file():
        write_text(path, ",".join(fields) + "\n")
    append_text(path, ",".join(f'"{cell}"' if "," in cell else cell for cell in cells) + "\n")


def as_cell(value: object) -> str:
    """Return a number with six digits, and anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
