"""Thousands of damaged files: each is one sentence, or is read as what it now says, and never a traceback.

A file that carries a checksum is never read as anything but what was written.
"""

import random
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest

from scanmix.config import UserError
from scanmix.pretrain import cache as artifacts
from tests.fuzz.kinds import KINDS, Kind, build

QUICK, LONG = 25, 400
"""Damaged files of each kind: 26 x 400 and 2 x 100 are more than ten thousand."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of every kind of file."""
    top = tmp_path_factory.mktemp("fuzz") / "whole"
    top.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANMIX_CACHE", str(top / "unused"))
        patch.setattr(artifacts, "MOST_LOST", 0.0)
        build(top)
    return top


def read(kind: Kind, top: Path) -> tuple[Any, str]:
    """What the product finds, or what it says instead."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = kind.read(top)
        except UserError as error:
            return None, str(error)
    return found, " ".join(str(warning.message) for warning in told if issubclass(warning.category, UserWarning))


def damage(name: str, count: int, whole: Path, folder: Path) -> int:
    """Damage a file so many times and read it; return how often that made a difference."""
    kind, top = KINDS[name], folder / "fuzz"
    shutil.copytree(whole, top)
    path = top / kind.file
    content = path.read_bytes()
    right, told = read(kind, top)
    assert not told, told
    noticed = 0
    for number in range(count):
        draw = random.Random(zlib.crc32(f"{name} {number}".encode()))
        way = draw.choice(kind.ways)
        path.write_bytes(way(draw, content))
        try:
            found, told = read(kind, top)
        except Exception as error:
            raise AssertionError(f"{name} {number} ({way.__name__}): {type(error).__name__}: {error}") from error
        finally:
            path.write_bytes(content)
        noticed += bool(told) or found != right
        assert "\n\n" not in told and len(told) < 8000, (name, number, way.__name__, told)
        assert told or not kind.sealed or found == right, (name, number, way.__name__)
    return noticed


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_one_sentence(name: str, whole: Path, tmp_path: Path) -> None:
    assert damage(name, QUICK, whole, tmp_path) > 0


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_much_damage_is_one_sentence_each(name: str, whole: Path, tmp_path: Path) -> None:
    damage(name, LONG // 4 if KINDS[name].slow else LONG, whole, tmp_path)
