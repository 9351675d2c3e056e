"""Commands that do the work, on small folders of PNG and JPEG files of mixed sizes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app, summary
from scanmix.cli.demo import demonstrate
from scanmix.config import Table
from scanmix.data.decoding import find_images
from scanmix.data.readers.images import read_images
from scanmix.model import load_model

SMALL: Table = {"network": {"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2}}
NETWORK = ["--set", "network.widths=[8,16]", "--set", "network.blocks=[1,1]", "--set", "network.stem_stride=2"]
PLAIN = ["--method", "cross_entropy", "--set", "epochs=2", *NETWORK]
SHORT = [
    "--method", "scanmix", "--set", "epochs=3", "--set", "warmup=1", "--set", "pretrain.epochs=2",
    "--set", "clustering.epochs=1", "--set", "num_neighbors=3", *NETWORK,
]  # fmt: skip
CLASSES = {"night": (20, 20, 60), "sun [hot]": (240, 200, 40)}


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def paint(folder: Path, count: int, seed: int) -> None:
    """Write `count` images of each class: one plain color with a little noise, files of mixed kinds and sizes."""
    rng = np.random.default_rng(seed)
    for name, color in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            height, width = rng.integers(17, 40, 2)
            pixels = rng.normal(color, 25, (height, width, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}{('.png', '.jpg', '.JPEG')[i % 3]}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    paint(folder / "train", 12, seed=0)
    paint(folder / "test", 5, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(photos: Path) -> Path:
    """A run of ScanMix on the photos; half of the labels drawn anew."""
    folder = photos.parent / "trained"
    say("train", photos, "--noise", "symmetric:0.5", "--out", folder, *SHORT)
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANMIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def metrics_of(folder: Path) -> list[Table]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]


def test_a_folder_is_trained_on_and_summed_up(photos: Path, tmp_path: Path) -> None:
    result = say("train", photos, "--noise", "symmetric:0.5", *SHORT)
    folder = tmp_path / "runs" / "photos-symmetric-0.5-scanmix-0"
    run = scanmix.open_run(folder)
    assert run.finished and run.class_names == tuple(CLASSES)
    assert "photos: 24 images of 2 classes (24x24, color), 10 test images" in result.stdout
    assert f"actual {run.noise.actual:.1%}".replace("%", " %") in result.stdout
    estimated = json.loads((folder / "audit.json").read_text())["noise_rate"]["value"]
    assert "asked 50.0 %" in result.stdout
    assert f"estimated {estimated:.1%}".replace("%", " %") in result.stdout, "by the audit, as the count below"
    labels = rows_of(folder / "labels.csv")
    doubtful = [row for row in labels if float(row["p_clean"]) < 0.5]
    assert f"{len(doubtful)} of 24 labels look wrong." in result.stdout
    assert "scanmix 3/3 accuracy" in result.stderr and "Pre-training" in result.stderr  # no terminal: lines
    assert f"for a classifier  scanmix predict {folder.relative_to(tmp_path)}" in result.stdout


def test_an_audit_writes_three_files_and_says_what_follows(photos: Path, tmp_path: Path) -> None:
    say("train", photos, *PLAIN, "--out", "run")
    before = (tmp_path / "run" / "labels.csv").read_bytes()
    result = say("audit", "run", "--worst", "2")
    assert "Wrong labels: about" in result.stdout and "Most confused" in result.stdout
    assert (tmp_path / "run" / "labels.csv").read_bytes() == before, "a run ends with the same audit"
    assert (tmp_path / "run" / "labels.parquet").is_file()
    refused = say("audit", "run", "--labels", "y.npy", "--noise", "symmetric:0.5", code=2).stderr
    assert "--noise, --labels do not go with the audit of a run, as run is" in refused
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["labels"] == 24


def test_arrays_are_audited_into_a_folder(tmp_path: Path) -> None:
    labels = np.array(["cat", "dog"] * 10)
    probs = np.tile([[0.9, 0.1], [0.2, 0.8]], (10, 1))
    probs[3] = [0.97, 0.03]
    np.save("y.npy", labels)
    np.save("p.npy", probs)
    say("audit", "--labels", "y.npy", "--probs", "p.npy", "--classes", "cat,dog")
    first = rows_of(tmp_path / "audit" / "labels.csv")[0]
    assert (first["id"], first["given"], first["suggested"], first["kind"]) == ("3", "dog", "cat", "wrong")
    assert (
        "y.npy alone tell nothing: give --probs, --features or both" in say("audit", "--labels", "y.npy", code=2).stderr
    )
    for line in ([], ["--probs", "p.npy"]):
        assert "or give --labels" in say("audit", *line, code=2).stderr
    assert (
        "--size does not go with the audit of arrays" in say("audit", "--labels", "y.npy", "--size", 8, code=2).stderr
    )


def test_the_same_line_again_goes_on_and_another_is_refused(photos: Path) -> None:
    line = ["train", photos, *PLAIN, "--out", "run"]
    say(*line)
    assert not any("estimated_noise" in line for line in metrics_of(Path("run")))
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert "run was finished already" in say(*line).stdout
    result = say(*line, "--seed", "1", code=2)
    assert "run holds another run" in result.stderr and "seed" in result.stderr
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_a_table_is_trained_on(photos: Path, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["path", "label"])
        for path in find_images(photos / "train"):
            table.writerow([path.relative_to(photos), path.parent.name])
    result = say("train", "labels.csv", "--root", photos, *PLAIN, "--test", photos)
    assert "labels: 24 images of 2 classes" in result.stdout and "10 test images" in result.stdout
    assert scanmix.open_run("runs/labels-cross_entropy-0").last_accuracy is not None


def test_test_images_are_brought_to_classes_size_and_color_of_training(tmp_path: Path) -> None:
    from scanmix.data.readers import reload

    paint(tmp_path / "many", 4, seed=2)
    for name in ("night", "sun [hot]"):  # fewer pixels, gray, and one class more in training than here
        (tmp_path / "gray" / name).mkdir(parents=True)
        Image.new("L", (9, 9), 90).save(tmp_path / "gray" / name / "a.png")
    (tmp_path / "many" / "alien").mkdir()
    Image.new("RGB", (30, 30), "green").save(tmp_path / "many" / "alien" / "a.png")
    say("train", "many", "--test", "gray", "--out", "run", *PLAIN)
    run = scanmix.open_run("run")
    assert run.class_names == ("alien", "night", "sun [hot]")
    assert run.settings.source is not None
    test = reload(run.settings.source["test"])
    assert test.labels.tolist() == [1, 2] and test.channels == 3
    result = say("train", "gray", "--test", "many", "--out", "other", *PLAIN, code=2)
    assert "has the class 'alien'" in result.stderr and not Path("other").exists()


def test_a_broken_image_among_good_ones_is_listed_and_set_aside(tmp_path: Path) -> None:
    paint(tmp_path / "few", 4, seed=3)
    (tmp_path / "few" / "night" / "broken.png").write_bytes(b"\x89PNG and no more")
    result = say("train", "few", *PLAIN)
    assert "few: 8 images of 2 classes" in result.stdout
    assert "Warning: 1 of 9 images could not be read" in result.stderr
    assert f"skipped {tmp_path / 'few' / 'night' / 'broken.png'}: not an image" in result.stderr


def test_settings_come_from_recipe_and_command_line(photos: Path) -> None:
    Path("mine.toml").write_text(
        'method = "cross_entropy"\n[settings]\nepochs = 5\nbatch_size = 8\n'
        "[network]\nwidths = [8, 16]\nblocks = [1, 1]\nstem_stride = 2\n"
    )
    say("train", photos, "--recipe", "mine.toml", "--set", "epochs=1", "--out", "run")
    run = scanmix.open_run("run")
    assert run.settings.method == "cross_entropy"
    assert (run.settings.settings["epochs"], run.settings.settings["batch_size"]) == (1, 8)


def test_noise_from_a_file_is_the_noise_that_was_drawn(photos: Path) -> None:
    say("noise", photos, "--rate", "0.5", "--seed", "7", "--out", "draw.json")
    say("train", photos, "--noise", "file:draw.json", "--out", "from_file", *PLAIN)
    result = say("train", photos, "--noise", "symmetric:0.5", "--seed", "7", "--out", "drawn", *PLAIN)
    one, two = scanmix.open_run("from_file"), scanmix.open_run("drawn")
    assert one.settings.fingerprint == two.settings.fingerprint
    assert one.noise.asked == two.noise.asked == 0.5
    assert f"asked 50.0 %, actual {100 * (two.noise.actual or 0):.1f} %, estimated " in result.stdout


def test_predictions_are_the_model_s(photos: Path, trained: Path) -> None:
    result = say("predict", trained, photos / "test", "--top", 2)
    rows = rows_of(Path("predictions.csv"))
    files = find_images(photos / "test")
    assert [row["path"] for row in rows] == [str(path) for path in files]
    assert "Wrote predictions.csv: 10 of 10 images." in result.stdout
    images = read_images(files, size=24, channels=3).images
    names, shares = tuple(CLASSES), load_model(trained).predict_proba(images)
    for row, share in zip(rows, shares, strict=True):
        assert row["class"] == names[share.argmax()] and row["class_2"] == names[share.argmin()]
        assert float(row["probability"]) == pytest.approx(share.max(), abs=1e-6)
        assert float(row["probability_2"]) == pytest.approx(share.min(), abs=1e-6)


def test_prediction_takes_files_folders_and_tables_once_each(photos: Path, trained: Path) -> None:
    first, second, third = find_images(photos / "test")[:3]
    Path("list.csv").write_text(f"id,path\n1,{second}\n2,lost.png\n3,\n")
    Path("broken.jpg").write_bytes(third.read_bytes()[:60])
    result = say("predict", trained, first, "list.csv", "broken.jpg", first.parent, "--out", "out.csv")
    rows = rows_of(Path("out.csv"))
    inside = find_images(first.parent)
    others = [str(path) for path in inside if path not in (first, second)]
    assert [row["path"] for row in rows] == [str(first), str(second), *others]
    assert list(rows[0]) == ["path", "class", "probability"]
    assert "skipped lost.png: no such file" in result.stderr and "skipped broken.jpg: " in result.stderr
    assert f"{len(rows)} of {len(rows) + 2} images; 2 could not be read" in result.stdout


def test_prediction_refuses_what_it_cannot_do_and_writes_nothing(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "list.csv").write_text("file\nx.png\n")
    before = sorted(tmp_path.rglob("*"))
    for arguments, sentence in (
        (["nowhere.png"], "nowhere.png: no such file or folder"),
        (["empty"], "empty holds no image files"),
        (["text.png"], "not one of 1 files could be read as an image"),
        (["list.csv"], "list.csv has no column 'path'; it has file"),
        (["text.png", "--top", "3"], "--top 3 is more than the 2 classes"),
        (["text.png", "--out", "no/out.csv"], "no such folder"),
    ):
        assert sentence in say("predict", trained, *arguments, code=2).stderr
        assert sorted(tmp_path.rglob("*")) == before


def test_evaluation_counts_what_predict_says(photos: Path, trained: Path) -> None:
    result = say("evaluate", trained)
    assert result.stdout == say("evaluate", trained).stdout
    say("predict", trained, photos / "test")
    rows = rows_of(Path("predictions.csv"))
    right = [Path(row["path"]).parent.name == row["class"] for row in rows]
    assert f"Accuracy: {100 * sum(right) / 10:.1f} % of 10 images, within " in result.stdout
    assert "sun [hot]" in result.stdout  # brackets are no markup
    other = say("evaluate", trained, "--data", photos)  # has a test part: the same images
    assert other.stdout.splitlines()[-1] == result.stdout.splitlines()[-1]
    assert "has the class '0'; the model knows night" in say("evaluate", trained, "--data", "digits", code=2).stderr


def test_matching_of_clusters_is_told(photos: Path) -> None:
    short = ["--set", "pretrain.epochs=1", "--set", "clustering.epochs=1", "--set", "num_neighbors=3", *NETWORK]
    told = "best matching of clusters with classes"
    assert told in say("train", photos, "--method", "scan", "--out", "run", *short).stdout
    assert told in say("evaluate", "run").stdout


def test_without_test_images_evaluation_asks_for_some(tmp_path: Path) -> None:
    paint(tmp_path / "few", 4, seed=3)
    say("train", "few", *PLAIN, "--out", "run")
    assert "name labeled images" in say("evaluate", "run", code=2).stderr


def command(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(scanmix.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "scanmix", *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_stopped_run_goes_on_and_ends_the_same(photos: Path) -> None:
    line = ["train", photos, "--method", "cross_entropy", "--set", "epochs=40", *NETWORK, "--threads", "1"]
    say(*line, "--out", "whole")
    process = command(*line, "--out", "cut")
    deadline = time.monotonic() + 120
    while not (metrics := Path("cut/metrics.jsonl")).exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr and "`scanmix resume cut` goes on" in stderr
    assert not scanmix.open_run("cut").finished
    say("resume", "cut")
    assert metrics_of(Path("cut")) == metrics_of(Path("whole"))
    one, two = (load_model(name).predictor.state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert "cut is finished already" in say("resume", "cut").stdout


def test_a_real_process_ends_with_code_2_and_one_line() -> None:
    process = command("train", "nowhere", "--device", "cpu")
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith("Error: no folder, table or known data set 'nowhere'")


def test_the_demo_compares_counts_and_starts_anew(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    short: dict[str, Table] = {
        "cross_entropy": {**SMALL, "epochs": 2},
        "scanmix": {
            **SMALL, "epochs": 2, "warmup": 1, "pretrain": {"epochs": 1}, "clustering": {"epochs": 1},
        },
    }  # fmt: skip
    for number in ("1", "2"):
        demonstrate(0, Path("runs/demo"), 1, "symmetric:0.8", short)
        text = capsys.readouterr().out
        folder = tmp_path / "runs" / "demo" / number
        assert scanmix.open_run(folder / "cross_entropy").finished
        run = scanmix.open_run(folder / "scanmix")
        assert run.finished and run.noise.actual is not None and run.last_accuracy is not None
        assert "asked 80.0 %, actual 71.1 %, estimated" in text
        assert f"{100 * run.last_accuracy:.1f} %" in text
        assert f"scanmix evaluate runs/demo/{number}/scanmix" in text
    train, _ = scanmix.load("digits")
    truth = dict(zip(train.ids, train.labels.tolist(), strict=True))
    rows = rows_of(tmp_path / "runs" / "demo" / "2" / "scanmix" / "labels.csv")
    doubtful = [row for row in rows if float(row["p_clean"]) < 0.5 and row["suggested"] != row["given"]]
    found = sum(str(truth[row["id"]]) != row["given"] for row in doubtful)
    wrong = sum(str(truth[row["id"]]) != row["given"] for row in rows)
    assert f"{len(doubtful)} of 1437 labels look wrong; {found} of these are" in text
    assert f"of {wrong} wrong ones in all" in text


def test_after_a_training_its_labels_are_not_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that are printed come from the audit in memory; a later process reads the same ones from the file."""
    train, _ = scanmix.load(photos)
    plain: Table = {"method": "cross_entropy", "epochs": 1, "progress": False, **SMALL}
    run = scanmix.train(train, out="one", **plain)
    assert run.last_audit is not None
    assert summary.labels_of(run.last_audit) == summary.read_labels(Path("one"))
    assert scanmix.open_run("one").last_audit is None

    def refuse(folder: Path) -> list[summary.Label]:
        raise AssertionError(f"{folder}/labels.csv is read")

    monkeypatch.setattr(summary, "read_labels", refuse)
    assert "of 24 labels look wrong" in say("train", photos, "--out", "two", *PLAIN).stdout


@pytest.mark.timeout(120)
def test_a_pipe_is_no_image_to_predict(trained: Path, photos: Path) -> None:
    os.mkfifo("pipe.png")
    Path("list.csv").write_text(f"path\n{photos}/test/night/0.png\npipe.png\n")
    result = say("predict", trained, "list.csv")
    assert "1 of 2 images" in result.stdout and "pipe.png: a named pipe; a file is needed" in result.stderr
    result = say("predict", trained, "pipe.png", code=2)
    assert "not one of 1 files could be read as an image" in result.stderr


def test_one_class_is_enough_to_measure_on_and_parts_have_any_case(trained: Path, photos: Path) -> None:
    Path("Data/Training").mkdir(parents=True)
    os.symlink(photos / "train" / "night", "Data/Training/night")
    os.symlink(photos / "train" / "sun [hot]", "Data/Training/sun [hot]")
    Path("one").mkdir()
    os.symlink(photos / "test" / "night", "one/night")
    result = say("evaluate", trained, "--data", "one")
    assert "night" in result.stdout
    result = say("train", "Data", "--test", "one", "--out", "run", *PLAIN)
    assert "2 classes" in result.stdout and "5 test images" in result.stdout
    assert say("evaluate", "run").exit_code == 0
