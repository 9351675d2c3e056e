"""`scanmix clean`: one line from a folder of photos to a reviewed list of wrong labels."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from scanmix.cli import app
from scanmix.training import open_run
from tests.encoders import write_encoder

SCRATCH = [
    "--method", "cross_entropy", "--set", "epochs=1", "--set", "network.widths=[4]", "--set", "network.blocks=[1]",
    "--set", "network.stem_stride=4",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of two classes, of which one of each has the wrong label; and a tiny encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for kind, name in enumerate(("leaves", "sky")):
        Path("photos", name).mkdir(parents=True)
        for number in range(12):
            color = np.array([(40, 160, 40), (80, 120, 230)][kind if number else 1 - kind])
            pixels = color + draw.normal(0, 25, (20, 30, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f"photos/{name}/{number:02}.png")
    write_encoder(Path("tiny.onnx"))


def typed(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["clean", *words], input=answer)


def test_one_line_looks_learns_lists_and_says_how_to_go_on() -> None:
    done = typed("photos", "--features", "onnx:tiny.onnx", "--no-review")
    assert done.exit_code == 0, done.output
    steps = [line[0] for line in done.stdout.splitlines() if " of 4: " in line]
    assert steps == ["1", "2", "3", "4"]
    run = open_run("runs/photos-clean")
    assert run.finished and run.settings.method == "propagate"
    assert Path("runs/photos-clean/report.html").is_file()
    assert done.stdout.splitlines()[-1] == "Whenever you like: scanmix review runs/photos-clean"
    wrong = [Path(path) for path in run.audit()["path"][:2]]
    assert {(path.parent.name, path.name) for path in wrong} == {("leaves", "00.png"), ("sky", "00.png")}
    again = typed("photos", "--features", "onnx:tiny.onnx", "--no-review")
    assert again.exit_code == 0 and "finished already" in again.stdout, "the same line goes on"


def test_from_scratch_it_says_how_long_that_takes_and_opens_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(importlib.import_module("scanmix.cli.clean"), "review", opened.append)
    done = typed("photos", *SCRATCH, "--review", "--out", "mine")
    assert done.exit_code == 0, done.output
    assert "24 images of 2 classes" in done.stdout and "Time on this machine" in done.stdout
    assert opened == [Path("mine")] and open_run("mine").finished


def test_corrected_labels_begin_a_run_of_their_own() -> None:
    Path("mine.csv").write_text("path,label,decision\n" + f"{Path('photos/sky/00.png').absolute()},leaves,relabel\n")
    done = typed("photos", "--features", "onnx:tiny.onnx", "--no-review", "--labels", "mine.csv")
    assert done.exit_code == 0, done.output
    assert open_run("runs/photos-mine-clean").finished


def test_what_cannot_be_trained_on_ends_after_the_look() -> None:
    for path in Path("photos/sky").iterdir():
        path.write_bytes(b"no image")
    done = typed("photos", *SCRATCH)
    assert done.exit_code in (1, 2) and "2 of 4" not in done.stdout
    assert not Path("runs").exists()
    assert typed("nowhere").exit_code == 2
