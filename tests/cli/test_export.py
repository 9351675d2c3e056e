"""`scanmix export`, and `scanmix predict` from what it wrote, from lists, to Parquet, calibrated."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app

NETWORK = {"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2, "final_norm": True}


def say(*arguments: object, code: int = 0, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train, test = scanmix.load("digits", per_class=60)
    noisy = scanmix.add_noise(train, "symmetric", rate=0.3, seed=0)
    scanmix.train(noisy, test=test, method="cross_entropy", out=folder, network=NETWORK, epochs=8, batch_size=16)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test image of each kind in a file, in a folder for each class."""
    folder = tmp_path_factory.mktemp("pictures")
    _, test = scanmix.load("digits")
    assert test is not None
    for place in range(120):
        path = folder / test.class_names[int(test.labels[place])] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(test.images[place, 0].numpy()).resize((20, 17)).save(path)
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_an_exported_folder_predicts_the_same_table(run: Path, pictures: Path, kind: str) -> None:
    result = say("export", run, "--out", "new/out", "--format", kind)
    assert f"Wrote new/out: README.md, SHA256SUMS, model.json, model.{kind}." in result.stdout
    assert ("Checked on 200 training images: probabilities differ by" in result.stdout) == (kind == "onnx")
    say("predict", "new/out", pictures, "--top", 3, "--out", "out.csv")
    say("predict", run, pictures, "--top", 3, "--out", "run.csv")
    found, expected = rows_of("out.csv"), rows_of("run.csv")
    assert len(found) == 120
    for one, two in zip(found, expected, strict=True):
        assert list(one) == ["path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
        for column in one:
            if column.startswith("probability"):
                assert float(one[column]) == pytest.approx(float(two[column]), abs=1e-5)
            else:
                assert one[column] == two[column]
    if kind == "safetensors":
        assert Path("out.csv").read_bytes() == Path("run.csv").read_bytes()


def test_an_onnx_folder_predicts_without_torch(run: Path, pictures: Path) -> None:
    say("export", run, "--out", "out")
    for name in ("README.md", "model.json"):
        Path("out", name).unlink()  # the file alone is enough
    absent = ("torch", "safetensors", "sklearn", "scipy", "onnx")
    code = (
        f"import sys; sys.modules |= dict.fromkeys({absent!r}); from scanmix.cli import app; "
        f"app(['predict', 'out', {str(pictures)!r}])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(scanmix.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    say("predict", "out", pictures, "--out", "here.csv")
    assert Path("predictions.csv").read_bytes() == Path("here.csv").read_bytes()


def test_export_says_what_is_wrong(run: Path) -> None:
    Path("empty").mkdir()
    assert "is no run folder" in say("export", "empty", "--out", "out", code=2).stderr
    assert "empty is there already" in say("export", run, "--out", "empty", code=2).stderr
    assert "torchscript" in say("export", run, "--out", "out", "--format", "torchscript", code=2).stderr
    say("export", run, "--out", "out")
    assert "out is no run folder: it has no run.toml" in say("export", "out", "--out", "again", code=2).stderr
    Path("out/model.onnx").write_bytes(b"cut")
    assert (
        "out/model.onnx is damaged and cannot be read (its checksum"
        in say("predict", "out", "-", code=2, stdin=b"a.png").stderr
    )
    assert sorted(os.listdir()) == ["empty", "out"]


def test_paths_come_from_standard_input(run: Path, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))[:3]
    lines = "\n".join(map(str, [*files, files[0], "lost.png"])).encode() + b"\n\n\xff.png\r\n"
    result = say("predict", run, files[1], "-", stdin=lines)
    assert [row["path"] for row in rows_of("predictions.csv")] == [str(files[i]) for i in (1, 0, 2)]
    assert "skipped lost.png: no such file" in result.stderr and "3 of 5 images; 2 could not be read" in result.stdout
    assert "standard input holds no image files" in say("predict", run, "-", stdin=b"\n", code=2).stderr


def test_tables_in_and_out_may_be_parquet(run: Path, pictures: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    files = sorted(pictures.rglob("*.png"))[:5]
    parquet.write_table(pyarrow.table({"path": [*map(str, files), None]}), "list.parquet")
    say("predict", run, "list.parquet", "--top", 2, "--out", "out.parquet")
    say("predict", run, "list.parquet", "--top", 2, "--out", "out.csv")
    table = parquet.read_table("out.parquet")
    text, number = pyarrow.string(), pyarrow.float64()
    assert table.schema.types == [text, text, number, text, number]
    for one, two in zip(table.to_pylist(), rows_of("out.csv"), strict=True):
        assert {key: f"{cell:.6f}" if isinstance(cell, float) else cell for key, cell in one.items()} == two
    parquet.write_table(pyarrow.table({"file": ["a.png"]}), "wrong.parquet")
    assert "has no column 'path'; it has file" in say("predict", run, "wrong.parquet", code=2).stderr


def test_calibration_changes_how_sure_not_which(run: Path, pictures: Path) -> None:
    say("predict", run, pictures, "--top", 10, "--out", "plain.csv")
    result = say("predict", run, pictures, "--top", 10, "--out", "tempered.csv", "--calibrate", "digits")
    assert "95 % interval" in result.stdout and "from 360 labels of which" in result.stdout
    temperature = float(result.stdout.split()[1])
    assert temperature != 1
    for one, two in zip(rows_of("plain.csv"), rows_of("tempered.csv"), strict=True):
        assert one["class"] == two["class"]
        best, second = float(one["probability"]), float(one["probability_2"])
        ratio = float(two["probability"]) / float(two["probability_2"])
        assert np.log(ratio) == pytest.approx(np.log(best / second) / temperature, rel=0.02, abs=0.01)
    say("export", run, "--out", "out")
    exported = say("predict", "out", pictures, "--out", "other.csv", "--calibrate", pictures)
    assert exported.stdout.split()[:1] == ["Temperature"] and "from 120 labels" in exported.stdout


def test_calibration_refuses_what_cannot_help(run: Path, pictures: Path) -> None:
    picture = next(pictures.rglob("*.png"))
    paths = "path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in sorted(pictures.rglob("*.png"))[:99])
    Path("few.csv").write_text(paths)
    refused = say("predict", run, picture, "--calibrate", "few.csv", code=2).stderr
    assert "at least 100 held-out labels, not 99" in refused
    scanmix.train(scanmix.load(pictures, size=8)[0], method="cross_entropy", out="mine", network=NETWORK, epochs=1)
    refused = say("predict", "mine", picture, "--calibrate", pictures, code=2).stderr
    assert "mine was trained on these images" in refused
    assert not Path("predictions.csv").exists()
