"""Cells of tables as text: what a spreadsheet must not run, what stands for nothing, numbers that are one class."""

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
"""What programs write where they have no value; `none` and `na` may be classes."""

_RUN = re.compile(r"'*\s*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf)", re.ASCII)
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
_QUOTED = re.compile(r"[\",\r\n]|^\s|\s$")


def csv_cell(cell: str) -> str:
    """Return a text as a cell of a CSV that no spreadsheet takes for a formula; `csv_text` gives it back.

    What begins as one gets a single quote in front, and so does what would then be taken for such a cell. Numbers
    stay: nothing runs in `-0.5`.
    """
    return f"'{cell}" if _runs(cell) else cell


def csv_text(cell: str) -> str:
    """Return the text of a cell that `csv_cell` made; any other cell is its own text."""
    return cell[1:] if cell.startswith("'") and _runs(cell[1:]) else cell


def csv_line(cells: Iterable[object], end: str = "\n") -> str:
    r"""Return a row of a CSV. Quoted are cells with a comma, a quote, a line end (a bare \r, too) or outer spaces.

    Texts are written as `csv_cell` says, everything else as `str` says.
    """
    return ",".join(_quoted(csv_cell(cell) if isinstance(cell, str) else str(cell)) for cell in cells) + end


def as_text(value: Any) -> str:
    """A cell of a table as text: 3.0, which is how tables with gaps store 3, is 3; missing is empty.

    Raises:
        ValueError: it is no single value, but a list or a record.
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
    """Return labels so that a class has one name: where all of them are numbers, `1.0` is `1`.

    Tables with gaps store whole numbers so. Other numbers stay as they are: `1.10` need not be `1.1`.
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
    """Whether a spreadsheet may take a cell for a formula, single quotes in front left aside."""
    return _RUN.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def _quoted(cell: str) -> str:
    if _QUOTED.search(cell) is None:
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
