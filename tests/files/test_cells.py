"""Cells of tables: no spreadsheet runs them, and every text comes back."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanmix.files.cells import as_text, csv_cell, csv_line, csv_text, one_name
from scanmix.files.tables import new_table, read_records

ODD = ["=", "+", "-", "@", "\t", "\r", "\n", "'", " ", "＝", '"', ",", ";", "a", "1", ".", "\x1b", "é"]


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1", "-", "--1"]
)
def test_what_begins_as_a_formula_gets_a_quote_in_front(cell: str) -> None:
    assert csv_cell(cell) == f"'{cell}" and csv_cell(csv_cell(cell)) == f"''{cell}"


@pytest.mark.parametrize("cell", ["-0.5", "+1", "-1e-7", "-inf", "a=b", "", "'", "'a", "1-2", "photos/-a.png"])
def test_numbers_and_plain_texts_stay(cell: str) -> None:
    assert csv_cell(cell) == cell and csv_text(cell) == cell


@given(st.text(st.sampled_from(ODD), max_size=8) | st.text(max_size=8))
def test_every_text_comes_back(text: str) -> None:
    assert csv_text(csv_cell(text)) == text


@given(st.lists(st.text(st.sampled_from(ODD), max_size=6), min_size=2, max_size=5))
def test_every_row_comes_back_from_any_reader_of_csv(cells: list[str]) -> None:
    for end in ("\n", "\r\n"):
        text = csv_line(cells, end) * 2
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True))
        assert [[csv_text(cell) for cell in row] for row in rows] == [cells, cells]


def test_a_written_table_is_read_as_it_was(tmp_path: Path) -> None:
    names = ["d\rg/a.png", "=1+1", "'@x", " a ", "b\nc", "-1"]
    with new_table(tmp_path / "t.csv", {"path": str, "share": float}) as write:
        write([[name, -0.5] for name in names])
    rows = read_records(tmp_path / "t.csv", ("path", "share"))
    assert [row["path"] for row in rows] == names
    assert {row["share"] for row in rows} == {"-0.500000"}
    assert "'=1+1" in (tmp_path / "t.csv").read_text()


def test_values_of_a_table_as_text() -> None:
    values = [None, float("nan"), 3.0, 2.5, " a ", b"b", True, 7]
    assert [as_text(value) for value in values] == ["", "", "3", "2.5", "a", "b", "True", "7"]
    with pytest.raises(ValueError, match="a list"):
        as_text(["a"])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1.0", "1", "2.", "-0.0", "10.00"], ["1", "1", "2", "0", "10"]),
        (["1.10", "1.1", "2.0"], ["1.10", "1.1", "2"]),
        (["007", "1e3", "1.0"], ["007", "1e3", "1.0"]),
        (["1.0", "a"], ["1.0", "a"]),
        ([], []),
    ],
)
def test_a_class_has_one_name(labels: list[str], names: list[str]) -> None:
    assert one_name(labels) == names
