"""Read tables, CSV or Parquet by their suffix, and write them, as lines of JSON too. PyTorch is not needed."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scanmix.config import DataError, UserError, install
from scanmix.files import checked, reading, replacing, writing
from scanmix.files.cells import csv_line, csv_text

Record = Mapping[str, Any]
Row = Sequence[str | float]
Write = Callable[[Sequence[Row]], object]
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators of other programs, for the hint of an error."""
MOST_SHOWN = 60
"""Characters of the name of a column that an error shows."""
LINE_END = "\r\n"
"""Line end of the CSV tables that are written."""


def read_records(table: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[Record]:
    """Return the rows of a table, each as column -> cell. Of a Parquet file only the named columns are read.

    Cells of a CSV are returned without the quote that `scanmix.files.cells.csv_cell` adds.

    Args:
        table: the file.
        required: columns that must exist.
        optional: columns that are read if they exist.

    Raises:
        UserError: pyarrow is missing, which Parquet needs.
        DataError: the file cannot be read; a required column is missing; a named column exists twice; or a row has more
            cells than there are columns, or too few for a required column.
    """
    return (_read_parquet if _is_parquet(table) else _read_csv)(table, required, optional)


def columns_of(table: Path) -> list[str]:
    """Return the names of the columns of a table; no names if the file is missing or is not a table.

    Raises:
        UserError: pyarrow is missing, which Parquet needs.
    """
    if _is_parquet(table):
        pyarrow = load_pyarrow(table)
        try:
            with table.open("rb") as file:  # pyarrow cannot open a path that is not UTF-8
                return list(pyarrow.parquet.read_schema(file).names)
        except (OSError, pyarrow.ArrowException):
            return []
    try:
        if _is_json_lines(table):
            with table.open(encoding="utf-8") as file:
                return list(checked(dict[str, Any], next(file, "{}")))
        with table.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file, skipinitialspace=True, strict=True), ())]
    except (OSError, ValueError, csv.Error):
        return []


@contextmanager
def new_table(path: Path, columns: Mapping[str, type[str] | type[float]]) -> Iterator[Write]:
    """Give the block a function that appends rows to a new table; the table replaces `path` when the block ends.

    If the block fails, `path` stays as it was. Numbers have six decimals in a CSV.

    Args:
        path: the file: `.parquet`; `.jsonl`, one object of JSON a line; or a CSV.
        columns: name -> type of the cells, text or number.

    Raises:
        UserError: pyarrow is missing, which Parquet needs, or the file cannot be written.
    """
    opened = _parquet_writer if _is_parquet(path) else _json_writer if _is_json_lines(path) else _csv_writer
    with replacing(path) as aside, writing(path), opened(aside, columns) as write:
        yield write


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _is_json_lines(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl"


def load_pyarrow(path: Path) -> Any:
    """Import pyarrow with its Parquet module; `path` is the file that needs it, for the error.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow  # an optional package, imported only for Parquet files
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow; install it with: {install('parquet')}, or take a CSV.") from None
    return pyarrow


def data_frame(content: object) -> Any:  # pandas ships no types
    """Return columns by name, or a list of rows, as a data frame of pandas.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError("a data frame needs pandas: pip install pandas") from None
    return pandas.DataFrame(content)


def _check_columns(table: Path, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    for column in required:
        if column not in columns:
            between = next(
                (words for sign, words in SEPARATORS.items() if len(columns) == 1 and sign in columns[0]), ""
            )
            hint = f" Its cells stand between {between}; save it with commas." if between else ""
            found = ", ".join(name if len(name) < MOST_SHOWN else f"{name[:MOST_SHOWN]}..." for name in columns)
            raise DataError(f"{table} has no column {column!r}; it has {found or 'none'}.{hint}")
    for column in (*required, *optional):
        if columns.count(column) > 1:
            raise DataError(f"{table} has the column {column!r} {columns.count(column)} times; keep one.")


def _read_csv(table: Path, required: Sequence[str], optional: Sequence[str]) -> list[Record]:
    records: list[Record] = []
    with reading(table, error=DataError), table.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            columns = [name.strip() for name in next(rows, ())]
            _check_columns(table, columns, required, optional)
            for row in filter(None, rows):
                records.append(_record(table, columns, required, row, len(records) + 1))
        except UnicodeDecodeError as error:
            raise DataError(f"{table} cannot be read as a UTF-8 CSV table: {error}.") from None
        except csv.Error as error:
            raise DataError(
                f"row {len(records) + 1} of {table} cannot be read ({error}): a quotation mark may lack its end, or "
                "stand inside a cell without being doubled."
            ) from None
    return records


def _record(table: Path, columns: Sequence[str], required: Sequence[str], row: Sequence[str], number: int) -> Record:
    """Return a row as column -> cell; None for the cells that a short row lacks."""
    if len(row) > len(columns):
        raise DataError(
            f"row {number} of {table} has {len(row)} cells, but there are {len(columns)} columns; put quotation marks "
            "around a cell that holds a comma."
        )
    for column in required:
        if columns.index(column) >= len(row):
            raise DataError(f"row {number} of {table} ends before its column {column!r}; complete it.")
    return dict(itertools.zip_longest(columns, map(csv_text, row)))


def _read_parquet(table: Path, required: Sequence[str], optional: Sequence[str]) -> list[Record]:
    pyarrow = load_pyarrow(table)
    with reading(table, error=DataError), table.open("rb") as file:
        try:
            columns = pyarrow.parquet.read_schema(file).names
            _check_columns(table, columns, required, optional)
            wanted = [column for column in (*required, *optional) if column in columns]
            # `to_pylist` also turns categorical columns into plain values.
            records: list[Record] = pyarrow.parquet.read_table(file, columns=wanted).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{table} cannot be read as Parquet: {error}.") from None
    return records


@contextmanager
def _csv_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    # With surrogateescape, a path that is not UTF-8 is written with the bytes that it has on the disk.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        file.write(csv_line(columns, LINE_END))
        yield lambda rows: file.writelines(
            csv_line([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row], LINE_END) for row in rows
        )


@contextmanager
def _json_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(
            json.dumps(dict(zip(columns, map(_utf8, row), strict=True)), ensure_ascii=False) + "\n" for row in rows
        )


@contextmanager
def _parquet_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    pyarrow = load_pyarrow(path)
    types = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with path.open("wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:

        def write(rows: Sequence[Row]) -> None:
            records = [dict(zip(columns, map(_utf8, row), strict=True)) for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(records, schema))

        yield write


def _utf8(cell: str | float) -> str | float:
    """Spell out the bytes of a path that are not UTF-8, because Parquet and JSON hold only UTF-8."""
    return cell if isinstance(cell, float) else cell.encode("utf-8", "backslashreplace").decode("utf-8")
