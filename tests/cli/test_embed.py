"""`scanmix embed`, and `scanmix audit DATA --features MODEL`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import scanmix
from scanmix.cli import app
from tests.encoders import METADATA, write_encoder


def say(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.stderr.splitlines()[-1]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    write_encoder(Path("tiny.onnx"))


@pytest.fixture
def photos() -> Path:
    """Twelve photos of each of two classes, 20x30 pixels; one is a copy of another, and one label of each is wrong."""
    draw, folder = np.random.default_rng(0), Path("photos")
    for kind, name in enumerate(("leaves", "sky")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            color = np.array([(40, 160, 40), (80, 120, 230)][kind if number else 1 - kind])
            pixels = color + draw.normal(0, 25, (20, 30, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:02}.png")
    (folder / "sky" / "05.png").write_bytes((folder / "sky" / "04.png").read_bytes())
    return folder


def test_features_are_computed_once_and_copied(photos: Path) -> None:
    line = ["embed", photos, "--model", "onnx:tiny.onnx", "--out", "f.npy"]
    first = say(*line)
    assert "onnx:tiny.onnx: weights " in first and "photos: 24 images of 2 classes (16x16, color)." in first
    assert "Features: 24 x 6 in half precision. 23 pictures took " in first
    assert " a second (1 copies of others were computed once)." in first
    assert first.splitlines()[-1] == "Wrote f.npy. Next: scanmix audit photos --features f.npy"
    rows = np.load("f.npy")
    assert rows.dtype == np.float16 and rows.shape == (24, 6)
    again = say(*line[:-2])
    assert "Features: 24 x 6 in half precision, found in the cache." in again
    (kept,) = Path("cache/features").glob("*.npy")
    assert again.splitlines()[-1] == f"They lie in {kept.absolute()}." and np.array_equal(np.load(kept), rows)


def test_the_audit_of_a_file_of_features_is_that_of_the_model(photos: Path) -> None:
    say("embed", photos, "--model", "onnx:tiny.onnx", "--out", "f.npy")
    say("audit", photos, "--features", "f.npy", "--out", "one")
    shown = say("audit", photos, "--features", "onnx:tiny.onnx", "--out", "other")
    assert "found in the cache" in shown
    assert Path("one/labels.csv").read_text() == Path("other/labels.csv").read_text()
    worst = [line.split(",")[0] for line in Path("one/labels.csv").read_text().splitlines()[1:3]]
    assert sorted(worst) == ["leaves/00.png", "sky/00.png"]


def test_files_are_read_at_the_size_that_the_encoder_wants_if_they_have_as_many_pixels(photos: Path) -> None:
    write_encoder(Path("large.onnx"), size=64)
    assert "(20x20, color)" in say("embed", photos, "--model", "onnx:large.onnx")
    assert "(18x18, color)" in say("embed", photos, "--model", "onnx:tiny.onnx:crop=0.85")
    assert "(12x12, color)" in say("embed", photos, "--model", "onnx:tiny.onnx", "--size", 12)
    Path("t.csv").write_text(
        "path,label\n" + "".join(f"{kind}/0{i}.png,{kind}\n" for kind in ("leaves", "sky") for i in range(3))
    )
    assert "t: 6 images of 2 classes (20x20, color)" in say(
        "embed", "t.csv", "--root", photos, "--model", "onnx:large.onnx"
    )


def test_a_known_data_set_keeps_its_size() -> None:
    shown = say(
        "embed", "digits", "--per-class", 5, "--model", "onnx:tiny.onnx+onnx:tiny.onnx:crop=0.5", "--out", "f.npy"
    )
    assert "digits: 50 images of 10 classes (8x8, gray). Its test part (360) is left out." in shown
    rows = np.load("f.npy").astype(np.float32)
    assert rows.shape == (50, 12)
    np.testing.assert_allclose(np.square(rows.reshape(50, 2, 6)).sum(2), 1, atol=1e-2)


def test_a_license_in_the_file_is_shown() -> None:
    write_encoder(Path("free.onnx"), metadata={**METADATA, "license": "apache-2.0"})
    assert ", license apache-2.0." in say("embed", "digits", "--per-class", 2, "--model", "onnx:free.onnx")


def test_what_cannot_be_is_refused(photos: Path) -> None:
    model = ["--model", "onnx:tiny.onnx"]
    np.save("v.npy", np.zeros((4, 3), np.float32))
    assert "v.npy holds vectors already" in say("embed", "v.npy", *model, code=2)
    assert "f.csv is no .npy" in say("embed", photos, *model, "--out", "f.csv", code=2)
    assert "v.npy is there and is not a .npy of features" in say("embed", photos, *model, "--out", "v.npy", code=2)
    assert "unknown kind of encoder 'tim'; did you mean 'timm'" in say("embed", photos, "--model", "tim:x", code=2)
    assert "nowhere" in say("embed", "nowhere", *model, code=2)
    assert "v.npy holds vectors; --features onnx:tiny.onnx" in say(
        "audit", "v.npy", "--features", "onnx:tiny.onnx", code=2
    )
    labels = ["--labels", "y.npy", "--features", "onnx:tiny.onnx"]
    assert "--features onnx:tiny.onnx needs pictures: name DATA" in say("audit", *labels, code=2)
    assert sorted(np.load("v.npy").shape) == [3, 4]


def test_examples_of_the_command_line_are_those_of_python(photos: Path) -> None:
    from scanmix.features import embed, open_encoder

    say("embed", photos, "--model", "onnx:tiny.onnx", "--out", "f.npy")
    examples, _ = scanmix.load(photos, size=16)
    assert np.array_equal(embed(examples, open_encoder("onnx:tiny.onnx")), np.load("f.npy"))
    assert len(list(Path("cache/features").glob("*.npy"))) == 1
