"""Settings are resolved once in a training, whichever way it begins, from a name that is known before the data."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import scanmix
from scanmix.cli import app
from scanmix.config import load_recipe
from scanmix.data.readers import load
from scanmix.data.sources import name_of
from scanmix.training import resolve

NETWORK = {"widths": [4], "blocks": [1], "stem_stride": 4}
RECIPE = 'method = "cross_entropy"\n[settings]\nepochs = 1\n[network]\nwidths = [4]\nblocks = [1]\nstem_stride = 4\n'


@contextmanager
def calls(*functions: Callable[..., Any]) -> Iterator[list[str]]:
    """Count calls wherever a function was imported to; the names of those that were called, in order."""
    codes, found = {function.__code__: function.__name__ for function in functions}, list[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in codes:
            found.append(codes[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    Path("mine.toml").write_text(RECIPE)


def test_the_command_resolves_once() -> None:
    arguments = ["train", "digits", "--recipe", "mine.toml", "--per-class", "4", "--limit-test", "20", "--out", "run"]
    with calls(resolve, load_recipe) as found:
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert found == ["resolve", "load_recipe"]


def test_the_function_resolves_once() -> None:
    examples, _ = load("digits", per_class=4)
    with calls(resolve, load_recipe) as found:
        scanmix.train(examples, recipe="mine.toml", progress=False)
    assert found == ["resolve", "load_recipe"]


def test_the_doctor_resolves_once() -> None:
    with calls(resolve) as found:
        result = CliRunner().invoke(app, ["doctor", "digits", "--recipe", "mine.toml", "--per-class", "4"])
    assert result.exit_code == 0, result.output
    assert found == ["resolve"]


@pytest.mark.parametrize("source", ["photos", "photos/", ".", "digits.csv", "vectors.npy", "digits"])
def test_the_name_of_data_is_known_before_it_is_read(source: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "photos" / name / "0.png")
    Path("digits.csv").write_text("path,label\nphotos/a/0.png,a\nphotos/b/0.png,b\n")
    np.save("vectors.npy", np.eye(2, dtype=np.float32))
    Path("vectors.csv").write_text("label\na\nb\n")
    if source == ".":
        os.chdir("photos")
    assert load(source)[0].name == name_of(source)
