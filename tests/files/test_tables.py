"""Tables by their suffix: what is written is read again; what cannot be is told."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from scanmix.config import UserError, install
from scanmix.files.tables import columns_of, new_table, read_records

COLUMNS: dict[str, type[str] | type[float]] = {"path": str, "share": float}


@pytest.mark.parametrize("name", ["table.csv", "table.PARQUET"])
def test_rows_come_back(tmp_path: Path, name: str) -> None:
    with new_table(tmp_path / name, COLUMNS) as write:
        write([["a,\"b'.png", 0.25], ["ü.png", 1.0]])
        write([["c.png", 1 / 3]])
    rows = read_records(tmp_path / name, required=("path", "share"))
    assert [row["path"] for row in rows] == ["a,\"b'.png", "ü.png", "c.png"]
    assert [float(row["share"]) for row in rows] == pytest.approx([0.25, 1.0, 1 / 3], abs=1e-6)
    assert os.listdir(tmp_path) == [name]


def test_lines_of_json_are_an_object_a_row(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    with new_table(table, COLUMNS) as write:
        write([["a,\"b'.png", 1 / 3], ["ü\n.png", 1.0]])
        write([[os.fsdecode(b"\xff.png"), 0.0]])
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    assert rows == [
        {"path": "a,\"b'.png", "share": 1 / 3},
        {"path": "ü\n.png", "share": 1.0},
        {"path": r"\udcff.png", "share": 0.0},
    ]
    assert columns_of(table) == ["path", "share"]
    table.write_text("no JSON\n")
    assert columns_of(table) == []


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.jsonl"])
def test_a_failure_leaves_the_old_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(ZeroDivisionError), new_table(tmp_path / name, COLUMNS) as write:
        write([["a.png", 1 / 0]])
    assert (tmp_path / name).read_text() == "old" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_path_that_is_no_utf8_is_written(tmp_path: Path, name: str) -> None:
    strange = os.fsdecode(b"\xff.png")
    with new_table(tmp_path / name, COLUMNS) as write:
        write([[strange, 1.0]])
    if name.endswith("csv"):
        assert b"\xff.png" in (tmp_path / name).read_bytes()
    else:
        assert read_records(tmp_path / name, ("path",))[0]["path"] == r"\udcff.png"


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    with new_table(tmp_path / name, COLUMNS) as write:
        write([["a.png", 1.0]])
    with pytest.raises(UserError, match="has no column 'label'; it has path, share"):
        read_records(tmp_path / name, required=("path", "label"))
    assert "share" in read_records(tmp_path / name, ("path",), ("share", "split"))[0]


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=re.escape(install("parquet"))), new_table(tmp_path / "a.parquet", COLUMNS):
        pass
    assert not os.listdir(tmp_path)
