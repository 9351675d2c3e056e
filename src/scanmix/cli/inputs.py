"""The images a person names on the command line: files to classify, and labeled ones to measure with."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scanmix.config import UserError

if TYPE_CHECKING:
    from scanmix.data.examples import Examples
    from scanmix.export.classifier import Classifier

STDIN = Path("-")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files named, found in folders, or listed in tables or on standard input (`-`); each once, in the order given.

    Raises:
        UserError: one of the paths does not exist, or there is nothing in it.
    """
    from scanmix.data.decoding import find_pictures

    found: dict[Path, None] = {}
    for path in paths:
        if path == STDIN:
            inside = _from_stdin()
        elif path.is_dir():
            inside = find_pictures(path)
        elif not path.exists():
            raise UserError(f"{path}: no such file or folder")
        elif path.suffix.lower() in (".csv", ".parquet"):
            inside = _from_table(path)
        else:
            inside = [path]
        if not inside:
            raise UserError(f"{'standard input' if path == STDIN else path} holds no image files")
        found |= dict.fromkeys(inside)
    return list(found)


def load_labeled(model: Classifier, data: str, root: Path | None = None) -> Examples:
    """Load labeled images in a model's classes, size and channels; their test part where they have one.

    Raises:
        UserError: they cannot be read, or have a class the model does not know.
    """
    from scanmix.data.readers import load, match

    height, width = model.size
    train, test = load(data, root=root, size=height if height == width > 1 else None)
    return match(test or train, model.class_names, model.size, model.channels)


def _from_stdin() -> list[Path]:
    """One path a line, in the bytes the file system uses, which need not be UTF-8."""
    return [Path(line) for line in os.fsdecode(sys.stdin.buffer.read()).splitlines() if line.strip()]


def _from_table(table: Path) -> list[Path]:
    """Paths in the column `path`, relative to the table's folder."""
    from scanmix.data.records import read_records

    cells = [str(record["path"] or "").strip() for record in read_records(table, required=("path",))]
    return [table.parent / cell for cell in cells if cell]
