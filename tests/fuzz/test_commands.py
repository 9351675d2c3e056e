"""Command lines as people mistype them: an answer, or one sentence and exit code 2; never a traceback."""

import os
import random
import shutil
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scanmix.cli import app
from tests.fuzz.kinds import build

QUICK, LONG = 3, 40
"""Mistyped lines of each line below."""
LINES: Sequence[Sequence[str]] = (
    ("train", "photos", "--method", "cross_entropy", "--recipe", "short.toml", "--out", "new", "--seed", "0"),
    ("train", "digits", "--noise", "symmetric:0.5", "--recipe", "short.toml", "--per-class", "2", "--out", "new"),
    ("train", "vectors.npy", "--labels", "vectors.csv", "--recipe", "flat.toml", "--threads", "1", "--out", "new"),
    ("train", "table.csv", "--root", ".", "--recipe", "short.toml", "--set", "epochs=1", "--out", "new"),
    ("resume", "run"),
    ("evaluate", "run", "--data", "digits"),
    ("predict", "run", "photos", "--out", "predictions.csv", "--top", "2"),
    ("predict", "given", "table.csv", "--root", ".", "--out", "p.parquet"),
    ("audit", "run", "--worst", "3", "--out", "listed"),
    ("audit", "--labels", "labels.npy", "--probs", "probs.npy", "--features", "vectors.npy", "--classes", "a,b,c"),
    ("audit", "--labels", "vectors.csv", "--features", "vectors.npy", "--out", "listed"),
    ("audit", "photos", "--noise", "symmetric:0.5", "--seed", "1", "--size", "8"),
    ("audit", "vectors.npy", "--labels", "vectors.csv", "--features", "vectors.npy", "--worst", "0"),
    ("audit", "digits", "--per-class", "3", "--out", "listed"),
    ("report", "run", "--out", "page.html", "--epoch", "1", "--compare", "run"),
    ("review", "run", "--static", "sheet.html", "--who", "me"),
    ("export", "run", "--out", "away", "--format", "safetensors"),
    ("noise", "digits", "--kind", "asymmetric", "--rate", "0.4", "--out", "n.json", "--per-class", "3"),
    ("methods", "scanmix"),
    ("reproduce", "figure3", "run", "--out", "drawn"),
    ("reproduce", "table1/cifar10/sym90/scanmix", "--explain", "--seeds", "2"),
)
WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "3.5", "nan", "inf", "1e999", "9" * 5000, "x", "\x1b[31m", "\udcff", "a\rb",
    "..", "/dev/null", "/", "photos", "run", "table.csv", "noise.json", "vectors.npy", "labels.npy", "run/run.toml",
    "missing", "digits", "symmetric:", "symmetric:2", "file:noise.json", "file:photos", "semantic:x:0.1", "pipe",
    "openset:x:0.1", "network=3", "settings=x", "epochs=nan", "epochs=[1]", "network.widths=[]", "a.b.c.d=1", "=",
    "views=[[[[", "--help", "--seed", "--out", "--set", "--top=999", "--worst=-1", "--no-such", "webvision:50",
    "cifar10n:worst", "é",
)  # fmt: skip
"""What may stand anywhere."""
HEAVY = ("--devices", "--nodes", "demo", "doctor", "review run")
"""What starts other processes, measures for minutes, or serves until it is stopped."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything."""
    top = tmp_path_factory.mktemp("lines") / "whole"
    top.mkdir()
    build(top)
    os.mkfifo(top / "pipe")
    for kind in "ab":
        (top / "photos" / kind).mkdir()
        for i in range(4):
            shutil.copy(top / "photos" / f"{i}.png", top / "photos" / kind / f"{i}.png")
    (top / "short.toml").write_text(
        'method = "cross_entropy"\n[settings]\nepochs = 1\n[network]\nwidths = [4]\nblocks = [1]\n'
    )
    (top / "flat.toml").write_text('method = "cross_entropy"\n[settings]\nepochs = 1\n')
    return top


def mistyped(draw: random.Random, line: Sequence[str]) -> list[str]:
    """A line with one or two words wrong, missing, doubled or in another place."""
    words = list(line)
    for _ in range(draw.choice([1, 1, 2])):
        place = draw.randrange(len(words))
        kind = draw.random()
        if kind < 0.55:
            words[place] = draw.choice(WORDS)
        elif kind < 0.7:
            del words[place]
        elif kind < 0.8:
            words.insert(place, draw.choice(WORDS))
        elif kind < 0.9:
            words.insert(place, words[place])
        else:
            words[place] = words[place][:-1] if len(words[place]) > 1 else draw.choice(WORDS)
        if not words:
            return ["methods"]
    return words


def _copy(whole: Path, place: Path) -> None:
    shutil.copytree(whole, place, ignore=shutil.ignore_patterns("pipe"))
    os.mkfifo(place / "pipe")


def run(words: Sequence[str]) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, list(words), catch_exceptions=True)


def type_lines(count: int, line: Sequence[str], whole: Path, folder: Path, patch: pytest.MonkeyPatch) -> int:
    patch.setenv("SCANMIX_CACHE", str(folder / "cache"))
    wrong = 0
    for number in range(count):
        draw = random.Random(zlib.crc32(f"{line} {number}".encode()))
        words = mistyped(draw, line)
        if any(heavy in " ".join(words) for heavy in HEAVY) and "--static" not in words:
            continue
        place = folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        _copy(whole, place)
        patch.chdir(place)
        result = run(words)
        failure = result.exception
        assert failure is None or isinstance(failure, SystemExit), (words, failure)
        assert result.exit_code in (0, 1, 2), (words, result.output)
        assert "Traceback" not in result.output and "\x1b[31m" not in result.output, (words, result.output)
        wrong += result.exit_code == 2
    return wrong


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line[:2]))
def test_a_mistyped_line_is_one_sentence(
    line: Sequence[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(QUICK, line, whole, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line[:2]))
def test_many_mistyped_lines_are_one_sentence_each(
    line: Sequence[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type_lines(LONG, line, whole, tmp_path, monkeypatch) > 0


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line[:2]))
def test_the_lines_themselves_are_right(
    line: Sequence[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    _copy(whole, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    result = run(line)
    assert result.exit_code == 0, result.output
