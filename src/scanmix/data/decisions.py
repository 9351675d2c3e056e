"""What a person says about labels in a table: decisions in the column `decision`, known labels in `trusted`."""

from __future__ import annotations

from pathlib import Path

from scanmix.config import DataError
from scanmix.data.examples import TRUSTED
from scanmix.files.cells import without_point

WORDS = {
    "": "", "undo": "",
    "keep": "keep", "kept": "keep",
    "accept": "accept", "accepted": "accept",
    "relabel": "relabel", "relabeled": "relabel", "relabelled": "relabel",
    "exclude": "exclude", "excluded": "exclude", "delete": "exclude", "deleted": "exclude",
    "remove": "exclude", "removed": "exclude",
    "unsure": "unsure",
    TRUSTED: TRUSTED,
}  # fmt: skip
"""Each accepted spelling and its meaning; `undo` takes a decision back."""

YES, NO = frozenset(("1", "true", "yes")), frozenset(("", "0", "false", "no"))
"""Words of the column `trusted`, in small letters."""


def read_decision(cell: str, path: Path, row: int) -> str:
    """Return "", "keep", "accept", "relabel", "trusted", "exclude" or "unsure" for a cell, in any case.

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


def read_trusted(cell: str, path: Path, row: int) -> bool:
    """Return whether a cell of the column `trusted` says that a label is known to be right; an empty cell says no.

    Args:
        cell: the text in the column.
        path: the table, for the error.
        row: number of the row below the header, from 1, for the error.

    Raises:
        DataError: the cell is none of `YES` and `NO`.
    """
    word = without_point(cell.strip().lower())
    if word not in YES and word not in NO:
        raise DataError(
            f"row {row} of {path} has {cell!r} as its trusted; use 1, true or yes, and 0, false, no or an empty cell."
        )
    return word in YES


def read_decided(decision: str, trusted: str, path: Path, row: int) -> str:
    """Return the decision of a row in the words of `read_decision`; without one, "trusted" where the label is trusted.

    Args:
        decision: the cell in the column `decision`; "" if there is none.
        trusted: the cell in the column `trusted`; "" if there is none.
        path: the table, for the error.
        row: number of the row below the header, from 1, for the error.

    Raises:
        DataError: a cell holds no such word.
    """
    known = read_trusted(trusted, path, row)
    return read_decision(decision, path, row) or (TRUSTED if known else "")
