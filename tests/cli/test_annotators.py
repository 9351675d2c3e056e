"""Commands on a table of votes: looked at, trained on, audited, with noise, and the page to review."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from scanmix.cli import app

NETWORK = ["--set", "network.widths=[8,16]", "--set", "network.blocks=[1,1]", "--set", "network.stem_stride=2"]
PLAIN = ["--method", "cross_entropy", "--set", "epochs=2", *NETWORK]
RIGHT = {"anna": 0.95, "ben": 0.9, "bad \x1b[31m": 0.4}


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture(autouse=True)
def votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ninety images of two classes, each with the votes of three people, a row for each vote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    rows = []
    for i in range(90):
        pixels = draw.integers(0, 60, (16, 16)) + 120 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(f"{i:02d}.png")
        for name, right in RIGHT.items():
            rows.append((f"{i:02d}.png", ("cat", "dog")[i % 2 if draw.random() < right else 1 - i % 2], name))
    with open("votes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "annotator"), *rows])
    yield tmp_path / "votes.csv"


def test_training_says_what_a_label_is_and_the_audit_who_is_right(votes: Path) -> None:
    trained = say("train", votes, *PLAIN, "--out", "run")
    assert "3 annotators; a label is the consensus of the votes on its image." in trained.stdout
    shown = say("audit", "run").stdout
    assert "Annotators, the worst first" in shown and "labels have no majority" in shown
    assert "\x1b[31m" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("│") and "±" in line]
    assert r"bad \x1b[31m" in lines[0]
    summary = json.loads(Path("run/audit.json").read_text(encoding="utf-8"))
    assert [each["votes"] for each in summary["annotators"]] == [90] * 3
    assert summary["annotators"][0]["quality"] < 0.6 < summary["annotators"][1]["quality"]
    say("review", "run", "--static", "review.html")
    assert "together cat (" in Path("review.html").read_text(encoding="utf-8")


def test_doctor_and_noise_take_a_table_of_votes(votes: Path) -> None:
    assert "90 images" in say("doctor", votes, "--method", "cross_entropy").stdout
    say("noise", votes, "--rate", "0.5", "--out", "noise.json")
    say("train", votes, "--noise", "file:noise.json", *PLAIN, "--out", "noisy")
    assert "Annotators" not in say("audit", "noisy").stdout  # noisy labels are nobody's votes


def test_what_is_wrong_with_a_table_of_votes_is_one_sentence(votes: Path) -> None:
    votes.write_text("path,label,annotator\n00.png,cat,anna\n00.png,dog,anna\n01.png,dog,anna\n", encoding="utf-8")
    refused = say("train", votes, *PLAIN, code=2)
    assert "rows 1 and 2 of" in refused.stderr and "votes of 'anna' on 00.png; keep one" in refused.stderr
