"""Cells of tables as text: protection from formulas, words for missing values, numbers that name one class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

MISSING = frozenset(
    {
        "nan", "NaN", "NAN", "-nan", "-NaN", "None", "null", "Null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA",
        "NaT",
    }
)  # fmt: skip
"""What programs write for a missing value. `none` and `na` are not here, because they may be classes."""

_RUN = re.compile(r"'*\s*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf)", re.ASCII)
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
_QUOTED = re.compile(r"[\",\r\n]|^\s|\s$")


def csv_cell(cell: str) -> str:
    """Return a text as a cell of a CSV that no spreadsheet takes for a formula; `csv_text` is the inverse.

    A text that begins like a formula gets a single quote in front. So does a text of single quotes and then a formula;
    otherwise the inverse would not be unique. Numbers stay: `-0.5` is not a formula.
    """
    return f"'{cell}" if _runs(cell) else cell


def csv_text(cell: str) -> str:
    """Return the text of a cell that `csv_cell` made; any other cell is returned as it is."""
    return cell[1:] if cell.startswith("'") and _runs(cell[1:]) else cell


def csv_line(cells: Iterable[object], end: str = "\n") -> str:
    r"""Return a row of a CSV: texts by `csv_cell`, other values by `str`.

    Cells with a comma, a quote, a line end (also a single \r) or spaces at their ends are quoted.
    """
    return ",".join(_quoted(csv_cell(cell) if isinstance(cell, str) else str(cell)) for cell in cells) + end


def as_text(value: Any) -> str:
    """Return a cell of a table as text: 3.0 becomes "3", because tables with gaps store 3 so; missing values are "".

    Raises:
        ValueError: the cell holds a list or a record, not a single value.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape").strip()
    if isinstance(value, list | tuple | dict):
        raise ValueError(f"a {type(value).__name__}")
    return str(value).strip()


def one_name(labels: Sequence[str]) -> list[str]:
    """Return labels so that each class has one name: if all labels are numbers, `1.0` becomes `1`.

    Tables with gaps store whole numbers as `1.0`. Other numbers stay: `1.10` need not be the same class as `1.1`.
    """
    names = {label: label for label in labels}
    if all(_PLAIN_NUMBER.fullmatch(name) for name in names):
        names = {label: without_point(label) for label in names}
    return [names[label] for label in labels]


def without_point(text: str) -> str:
    """Return `1` for `1.0`, and any other text as it is."""
    found = _WHOLE.fullmatch(text)
    return text if found is None else "0" if int(found[1]) == 0 else found[1]


def _runs(cell: str) -> bool:
    """Whether a spreadsheet may take a cell for a formula, if single quotes in front are ignored."""
    return _RUN.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def _quoted(cell: str) -> str:
    if _QUOTED.search(cell) is None:
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
