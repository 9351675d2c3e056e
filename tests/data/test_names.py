import xml.etree.ElementTree
from pathlib import Path

import pytest

from scanmix.data.names import from_here, visible


def test_names_stay_as_they_are() -> None:
    for name in ("cat", "Straße 7.png", "猫", "a\tb\nc", "🐈", "<b>&", "n\u0303", "\u00a0"):
        assert visible(name) == name


def test_what_would_steer_or_hide_is_shown_by_its_number() -> None:
    assert visible("\x1b[2Ja\rb\x00\x9b\x7f\u202e\udcff") == r"\x1b[2Ja\rb\x00\x9b\x7f\u202e\xff"
    for code in [*range(0xA0), *range(0x2000, 0x2070), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF]:
        text = visible(chr(code))
        xml.etree.ElementTree.fromstring(f"<a>{text.replace('&', '').replace('<', '')}</a>".encode())


def test_a_path_is_shown_as_it_is_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "a b" / "c.csv") == str(Path("a b/c.csv"))
    for path in ("photos", "../photos", str(tmp_path.parent / "photos"), str(tmp_path) + "2"):
        assert from_here(path) == path
