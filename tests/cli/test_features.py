"""`scanmix train --features`: a run on pictures in every command that comes after it."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from scanmix.cli import app
from scanmix.training import open_run
from tests.encoders import METADATA, write_encoder


def say(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on twelve photos of each of two classes, of which one of each has the wrong label."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("made")
    for part in ("photos", "new"):
        for kind, name in enumerate(("leaves", "sky")):
            (folder / part / name).mkdir(parents=True)
            for number in range(12):
                wrong = part == "photos" and number == 0
                color = np.array([(40, 160, 40), (80, 120, 230)][1 - kind if wrong else kind])
                pixels = color + draw.normal(0, 25, (20, 30, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / part / name / f"{number:02}.png")
    write_encoder(folder / "tiny.onnx", metadata={**METADATA, "license": "CC0-1.0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SCANMIX_CACHE", str(folder / "cache"))
        line = ["train", "photos", "--test", "new", "--features", "onnx:tiny.onnx", "--method", "cross_entropy"]
        shown = say(*line, "--set", "epochs=30", "--threads", "1")
        again = say(*line, "--set", "epochs=30", "--threads", "1")
    (folder / "shown.txt").write_text(shown)
    (folder / "again.txt").write_text(again)
    return folder


@pytest.fixture(autouse=True)
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("SCANMIX_CACHE", str(made / "cache"))


RUN = Path("runs/photos-tiny-cross_entropy-0")


def test_without_a_method_labels_are_propagated() -> None:
    shown = say("train", "photos", "--test", "new", "--features", "onnx:tiny.onnx", "--threads", "1")
    folder = "runs/photos-tiny-propagate-0"
    assert shown.splitlines()[-1] == f"  for a classifier  scanmix predict {folder} path/to/images"


def test_train_says_which_encoder_and_what_comes_next() -> None:
    shown = Path("shown.txt").read_text()
    assert "onnx:tiny.onnx: weights " in shown and "license CC0-1.0." in shown
    assert "photos: 24 images of 2 classes (16x16, color), 24 test images." in shown
    assert shown.splitlines()[-1] == f"  for a classifier  scanmix predict {RUN} path/to/images"
    assert f"{RUN} was finished already" in Path("again.txt").read_text()
    assert open_run(RUN).last_accuracy == 1


def test_predict_takes_new_pictures() -> None:
    say("predict", RUN, "new", "--out", "p.csv")
    with Path("p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and all(row["class"] == Path(row["path"]).parent.name for row in rows)
    assert "Accuracy: 100" in say("evaluate", RUN, "--data", "new")


def test_audit_review_and_report_show_pictures() -> None:
    say("audit", RUN)
    with (RUN / "labels.csv").open() as file:
        worst = [Path(row["path"]).relative_to(Path("photos").absolute()) for row in csv.DictReader(file)][:2]
    assert sorted(map(str, worst)) == ["leaves/00.png", "sky/00.png"]
    assert "to be looked at without this program" in say("review", RUN, "--static", "look.html")
    assert Path("look.html").read_text().count("data:image/") >= 2
    say("report", RUN)
    page = (RUN / "report.html").read_text()
    assert "data:image/" in page
    assert f"--features onnx:{Path('tiny.onnx').absolute()}" in page


def test_a_moved_encoder_is_named_and_a_changed_one_refused() -> None:
    Path("tiny.onnx").rename("moved.onnx")
    try:
        assert "tiny.onnx" in say("predict", RUN, "new", "--out", "q.csv", code=2)
        assert "Accuracy: 100" in say("evaluate", RUN, "--encoder", "onnx:moved.onnx")
        say("predict", RUN, "new", "--out", "q.csv", "--encoder", "onnx:moved.onnx")
        write_encoder(Path("tiny.onnx"), seed=1)
        assert "bring back the file that was used" in say("predict", RUN, "new", "--out", "q.csv", code=2)
        assert "finished already" in say("resume", RUN, "--encoder", "onnx:moved.onnx")
    finally:
        Path("moved.onnx").replace("tiny.onnx")


def test_vectors_are_refused() -> None:
    np.save("rows.npy", np.zeros((4, 3), np.float32))
    wanted = "rows.npy holds vectors already; an encoder turns pictures into features: leave --features out"
    assert wanted in say("train", "rows.npy", "--features", "onnx:tiny.onnx", code=2)
