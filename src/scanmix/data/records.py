"""Tables on disk, CSV or Parquet by their suffix: rows of named cells in and out. Needs no PyTorch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scanmix.config import DataError, UserError
from scanmix.files import replacing, writing

Record = Mapping[str, Any]
Row = Sequence[str | float]
Write = Callable[[Sequence[Row]], object]


def read_records(table: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[Record]:
    """Return the rows of a table, each as column -> cell; a Parquet file gives only the columns named here.

    Raises:
        UserError: the file cannot be read, or a required column is missing.
    """
    return _read_parquet(table, required, optional) if _is_parquet(table) else _read_csv(table, required)


@contextmanager
def new_table(path: Path, columns: Mapping[str, type[str] | type[float]]) -> Iterator[Write]:
    """Hand out what adds rows to a new table; `path` is replaced when the block ends, and left alone if it fails.

    A cell is text or a number, as `columns` says; CSV shows six decimals.

    Raises:
        UserError: `path` ends in .parquet and pyarrow is missing; or it cannot be written.
    """
    opened = _parquet_writer if _is_parquet(path) else _csv_writer
    with replacing(path) as aside, writing(path), opened(aside, columns) as write:
        yield write


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def load_pyarrow(path: Path) -> Any:
    """Return pyarrow with its Parquet part, for the sake of `path`.

    Raises:
        UserError: it is missing.
    """
    try:
        import pyarrow  # only where a Parquet file asks for it
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{path} needs pyarrow; install it with: pip install 'scanmix[parquet]', or take a CSV."
        ) from None
    return pyarrow


def _check_columns(table: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    for column in required:
        if column not in columns:
            raise DataError(f"{table} has no column {column!r}; it has {', '.join(columns) or 'none'}.")


def _read_csv(table: Path, required: Sequence[str]) -> list[Record]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            _check_columns(table, list(reader.fieldnames or ()), required)
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a UTF-8 CSV table: {error}.") from None


def _read_parquet(table: Path, required: Sequence[str], optional: Sequence[str]) -> list[Record]:
    pyarrow = load_pyarrow(table)
    try:
        columns = pyarrow.parquet.read_schema(table).names
        _check_columns(table, columns, required)
        wanted = [column for column in (*required, *optional) if column in columns]
        # dictionary-typed (categorical) columns come out as plain values
        records: list[Record] = pyarrow.parquet.read_table(table, columns=wanted).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{table} cannot be read as Parquet: {error}.") from None
    return records


@contextmanager
def _csv_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    # surrogateescape: a path that is no UTF-8 is written with the bytes it has on the disk
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(columns)
        yield lambda rows: table.writerows(
            [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows
        )


@contextmanager
def _parquet_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Write]:
    pyarrow = load_pyarrow(path)
    types = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def write(rows: Sequence[Row]) -> None:
            records = [dict(zip(columns, map(_utf8, row), strict=True)) for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(records, schema))

        yield write


def _utf8(cell: str | float) -> str | float:
    """A path that is no UTF-8 has its strange bytes spelled out: Parquet takes nothing else."""
    return cell if isinstance(cell, float) else cell.encode("utf-8", "backslashreplace").decode("utf-8")
