"""Decisions of a person about examples, as the column `decision` of a table holds them."""

from __future__ import annotations

from pathlib import Path

from scanmix.config import DataError

WORDS = {
    "": "", "undo": "",
    "keep": "keep", "kept": "keep",
    "accept": "accept", "accepted": "accept",
    "relabel": "relabel", "relabeled": "relabel", "relabelled": "relabel",
    "exclude": "exclude", "excluded": "exclude", "delete": "exclude", "deleted": "exclude",
    "remove": "exclude", "removed": "exclude",
    "unsure": "unsure",
}  # fmt: skip
"""Each accepted spelling and its meaning; `undo` takes a decision back."""


def read_decision(cell: str, path: Path, row: int) -> str:
    """Return "", "keep", "accept", "relabel", "exclude" or "unsure" for a cell; case and spaces do not matter.

    Args:
        cell: the text in the column.
        path: the table, for the error.
        row: number of the row below the header, from 1, for the error.

    Raises:
        DataError: the word is not a decision; lists those that are.
    """
    word = cell.strip().lower()
    if word not in WORDS:
        known = ", ".join(spelling for spelling in WORDS if spelling)
        raise DataError(f"row {row} of {path} has the decision {cell!r}; use one of {known}, or leave the cell empty.")
    return WORDS[word]
