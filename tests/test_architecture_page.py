"""`docs/architecture.md` against the code: its packages, and the way of an image through a real training."""

import importlib
import itertools
import re
import sys
import threading
import tomllib
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from scanmix.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "scanmix"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\d+\. `(\w+)` ", re.MULTILINE)
NO_IMAGE = {"config", "progress"}
"""They are called on the way, for settings and bars."""


def layers() -> list[str]:
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [name.strip("()") for name in contract["layers"]]


def test_the_packages_are_those_of_the_contract_in_its_order() -> None:
    drawn = PAGE.partition("```text\n")[2].partition("```")[0]
    lines = [re.split(r"\s{3,}", line.strip()) for line in drawn.splitlines()]
    rows = [set(re.findall(r"\w+", " ".join(names[:-1]))) for names in lines]
    assert rows == [set(names) for names in itertools.islice(in_rows(layers(), [len(row) for row in rows]), len(rows))]


def in_rows(names: list[str], sizes: list[int]) -> list[list[str]]:
    places = iter(names)
    return [list(itertools.islice(places, size)) for size in sizes] + [list(places)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_an_image_goes_the_way_that_the_page_tells(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    for module in ("scanmix.training.loop", "scanmix.semantic_noise", "torch._dynamo"):  # importing is no call
        importlib.import_module(module)
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(f"{PACKAGE}/"):
            called.add(name.removeprefix(f"{PACKAGE}/").partition("/")[0].removesuffix(".py"))

    line = ["train", str(folder), "--out", str(tmp_path / "run")]
    small = [
        "epochs=2", "warmup=1", "pretrain.epochs=1", "clustering.epochs=1", "network.widths=[4]", "network.blocks=[1]",
    ]  # fmt: skip
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        done = CliRunner().invoke(app, [*line, *(word for setting in small for word in ("--set", setting))])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert done.exit_code == 0 and (tmp_path / "run" / "labels.csv").exists(), done.output
    told = STEP.findall(PAGE)
    assert called - NO_IMAGE == set(told)
    assert len(told) <= 12
