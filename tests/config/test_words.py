"""Numbers and commands as people read them."""

import shlex
import sys
from pathlib import Path

import pytest

import scanmix
from scanmix.config import as_typed, last_ten, mean_of_ten, percent


@pytest.mark.parametrize(
    ("share", "more", "text"),
    [
        (0.8125, {}, "81.2 %"),
        (1.0, {"digits": 0}, "100 %"),
        (0.0004, {}, "0.0 %"),
        (0.5, {"unit": ""}, "50.0"),
        (None, {}, "-"),
        (None, {"missing": "not known"}, "not known"),
    ],
)
def test_a_share_in_percent(share: float | None, more: dict[str, str], text: str) -> None:
    assert percent(share, **more) == text  # type: ignore[arg-type]


WORDS = ["scanmix", "train", "my photos", "it's", "runs/first", '{"a": 1}', "a&b", ""]


def test_a_line_is_read_back_as_its_words_by_the_shell_of_the_system() -> None:
    assert shlex.split(as_typed(WORDS)) == WORDS
    assert as_typed(["scanmix", "train", "photos", "--out", "runs/first"]) == "scanmix train photos --out runs/first"


def test_paths_of_windows_are_quoted_as_its_shells_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, single quotes are letters, and backslashes need no quotes."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert as_typed(["scanmix", "train", r"C:\photos", r"C:\my photos"]) == r'scanmix train C:\photos "C:\my photos"'


def test_every_line_to_type_is_made_here() -> None:
    sources = Path(scanmix.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "shlex" in path.read_text(encoding="utf-8")] == ["words.py"]


def test_a_mean_of_the_last_ten_says_where_it_is_of_fewer() -> None:
    assert [last_ten(count) for count in (300, 10, 9, 2, 1)] == [
        "the last ten epochs", "the last ten epochs", "all 9 epochs", "all 2 epochs", "the only epoch",
    ]  # fmt: skip
    assert mean_of_ten(0.5, 10) == "50.0 %" and mean_of_ten(0.5, 9) == "50.0 % (of 9)"
    assert mean_of_ten(None, 0) == "-" and mean_of_ten(None, 0, missing="–") == "–"
