"""Decisions in the words of people and of other tools."""

from pathlib import Path

import pytest

from scanmix.config import DataError
from scanmix.data.decisions import read_decision

TABLE = Path("corrected.csv")


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("", ""), ("  ", ""), ("undo", ""), ("keep", "keep"), ("Kept", "keep"), (" ACCEPT ", "accept"),
        ("accepted", "accept"), ("relabel", "relabel"), ("Relabeled", "relabel"), ("relabelled", "relabel"),
        ("Exclude", "exclude"), ("excluded", "exclude"), ("delete", "exclude"), ("DELETED", "exclude"),
        ("remove", "exclude"), ("removed\t", "exclude"), ("unsure", "unsure"),
    ],
)  # fmt: skip
def test_spellings(cell: str, meant: str) -> None:
    assert read_decision(cell, TABLE, 1) == meant


@pytest.mark.parametrize("cell", ["exlude", "x", "no", "nan", "1", "exclude it"])
def test_an_unknown_word_is_refused_with_its_row_and_the_known_words(cell: str) -> None:
    with pytest.raises(DataError, match=f"row 7 of corrected.csv has the decision '{cell}'; use one of .*exclude"):
        read_decision(cell, TABLE, 7)
