"""`scanmix audit` of data on which nothing was trained, and of labels with features."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

import scanmix
from scanmix import progress
from scanmix.cli import app, shell
from scanmix.files.tables import read_records

COLORS = {"night": (20, 60), "sun": (240, 120)}
"""Class -> brightness of the left and right half of its images."""


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result


def refused(*arguments: object) -> str:
    told = say(*arguments, code=2).stderr.splitlines()[-1]
    assert told.startswith("Error: "), told
    return told


def rows_of(path: str) -> list[dict[str, str]]:
    return [dict(row) for row in read_records(Path(path), ("id", "given", "suggested", "kind"))]


def write_table(path: str, rows: Iterable[Sequence[object]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos() -> Path:
    """Twenty images of each of two classes; one of each stands under the other."""
    draw, folder = np.random.default_rng(0), Path("photos")
    for name, halves in COLORS.items():
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.repeat(halves, 8)[None].repeat(16, 0) + draw.normal(0, 6, (16, 16))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i:02}.png")
    one, other = folder / "night" / "07.png", folder / "sun" / "11.png"
    bytes_of_one = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(bytes_of_one)
    return folder


def clouds(count: int = 40, wrong: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of two classes far apart, and names of which one is wrong."""
    names = np.array(["cat", "dog"])[np.arange(count) % 2]
    vectors = np.where(names == "cat", 5.0, -5.0)[:, None] + np.random.default_rng(0).normal(size=(count, 4))
    names[wrong] = "cat"
    return vectors.astype(np.float32), names


# --- data ---


def test_wrong_labels_of_a_folder_are_listed_without_a_run(photos: Path) -> None:
    result = say("audit", photos, "--worst", 2)
    assert "photos: 40 images of 2 classes (16x16, gray)." in result.stdout and result.stderr == ""
    rows = rows_of("audit/photos/labels.csv")
    assert {(row["given"], row["suggested"], Path(row["path"]).name) for row in rows[:2]} == {
        ("night", "sun", "07.png"), ("sun", "night", "11.png"),
    }  # fmt: skip
    assert [row["kind"] for row in rows].count("wrong") == 2 and len(rows) == 40
    summary = json.loads(Path("audit/photos/audit.json").read_text())
    assert summary["labels"] == 40 and summary["looks_wrong"] == 2
    lines = result.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Wrong labels: about"))
    assert lines[first + 1 : first + 1 + len(summary["readings"])] == summary["readings"] != []
    more = summary["decisions_needed"]["more"]
    assert f"About {more} more decisions about labels drawn at random would narrow the interval to" in result.stdout
    assert "Written to audit/photos: labels.csv" in lines[-1] and sorted(os.listdir()) == ["audit", "photos"]
    assert {"labels.csv", "labels.parquet", "audit.json"} <= set(os.listdir("audit/photos"))
    assert "Known:" not in result.stdout


def test_a_table_and_its_root_are_read_as_for_training(photos: Path) -> None:
    Path("t").mkdir()
    write_table(
        "t/list.csv", [("path", "label"), *((f"{name}/{i:02}.png", name) for name in COLORS for i in range(20))]
    )
    shown = say("audit", "t/list.csv", "--root", photos, "--size", 10).stdout
    assert "list: 40 images of 2 classes (10x10, gray)" in shown
    assert {row["kind"] for row in rows_of("audit/list/labels.csv")[:2]} == {"wrong"}
    refused("audit", "t/list.csv", "--root", "t")


def test_noise_is_added_for_a_trial_and_what_is_known_is_said() -> None:
    line = ["audit", "digits", "--per-class", 30, "--noise", "symmetric:0.5", "--worst", 0]
    first = say(*line, "--seed", 3).stdout
    assert "digits: 300 images of 10 classes (8x8, gray). Its test part (360) is left out." in first
    noisy = scanmix.add_noise(scanmix.load("digits", per_class=30, seed=3)[0], "symmetric", rate=0.5, seed=3)
    assert noisy.noise is not None
    wrong = round(noisy.noise.actual_rate * 300)
    assert f"Known: {wrong} labels are wrong ({100 * noisy.noise.actual_rate:.1f} %)." in first
    found, name = noisy.labels, "audit/digits-symmetric-0.5/labels.csv"
    truth = {id_: str(label) for id_, label in zip(noisy.ids, noisy.true_labels.tolist(), strict=True)}  # type: ignore[union-attr]
    doubted = [row for row in rows_of(name) if float(row["p_clean"]) < 0.5 and row["suggested"] != row["given"]]
    right = sum(truth[row["id"]] != row["given"] for row in doubted)
    assert (
        f"{len(doubted)} look wrong, and {right} of these are." in first and right > 0.9 * wrong and len(found) == 300
    )
    before = Path(name).read_bytes()
    assert say(*line, "--seed", 3).stdout == first and Path(name).read_bytes() == before
    say(*line, "--seed", 4)
    assert Path(name).read_bytes() != before


def test_the_same_comes_from_python(photos: Path) -> None:
    say("audit", photos)
    scanmix.audit_data(scanmix.load(photos)[0]).to_csv("again.csv")
    assert Path("again.csv").read_bytes() == Path("audit/photos/labels.csv").read_bytes()


def test_vectors_are_their_own_features() -> None:
    vectors, names = clouds()
    np.save("x.npy", vectors)
    np.save("y.npy", names)
    assert "x: 40 vectors of 2 classes (4 features)" in say("audit", "x.npy", "--labels", "y.npy").stdout
    rows = rows_of("audit/x-y/labels.csv")
    assert rows[0]["id"] == "x/5" and [row["kind"] for row in rows].count("wrong") == 1


def test_features_that_are_given_take_the_place_of_pixels(photos: Path) -> None:
    # By these features the labels are right.
    np.save(
        "f.npy", np.repeat([[1.0, 0.1], [0.1, 1.0]], 20, axis=0) + np.random.default_rng(0).normal(0, 0.02, (40, 2))
    )
    say("audit", photos, "--features", "f.npy")
    assert "wrong" not in {row["kind"] for row in rows_of("audit/photos/labels.csv")}


def test_decisions_of_a_person_come_last(photos: Path) -> None:
    say("audit", photos, "--out", "before")
    decisions = {"night/07.png": "keep", "night/03.png": "exclude"}
    rows = [("id", "path", "given", "label", "decision")]
    for row in rows_of("before/labels.csv"):
        word = decisions.get("/".join(Path(row["path"]).parts[-2:]), "")
        rows.append((row["id"], row["path"], row["given"], row["given"], word))
    write_table("corrected.csv", rows)
    result = say("audit", photos, "--labels", "corrected.csv")
    found = rows_of("audit/photos-corrected/labels.csv")
    assert len(found) == 39 and (Path(found[-1]["path"]).name, found[-1]["decided"]) == ("07.png", "keep")
    assert "Decided by a person before: 1 keep" in result.stdout
    assert json.loads(Path("audit/photos-corrected/audit.json").read_text())["excluded"] == 1


# --- labels with features, without probabilities ---


@pytest.mark.parametrize("labels", ["y.npy", "y.csv"])
def test_labels_and_features_are_enough(labels: str) -> None:
    vectors, names = clouds()
    np.save("f.npy", vectors)
    np.save("y.npy", names)
    write_table("y.csv", [("id", "label"), *((f"no {i}", name) for i, name in enumerate(names))])
    result = say("audit", "--labels", labels, "--features", "f.npy")
    first = rows_of("audit/labels.csv")[0]
    assert (first["id"], first["given"], first["suggested"]) == ("no 5" if labels == "y.csv" else "5", "cat", "dog")
    assert "Two halves of the labels agree" in result.stdout


def test_a_table_of_labels_goes_with_probabilities() -> None:
    write_table("y.csv", [("label",), *[("cat",), ("dog",)] * 10])
    probs = np.tile([[0.9, 0.1], [0.2, 0.8]], (10, 1))
    probs[3] = [0.97, 0.03]
    np.save("p.npy", probs)
    say("audit", "--labels", "y.csv", "--probs", "p.npy")
    assert rows_of("audit/labels.csv")[0]["id"] == "3"


def test_a_trusted_label_of_such_a_table_is_taken_for_right() -> None:
    rows = [("cat", ""), ("dog", "")] * 10
    probs = np.tile([[0.9, 0.1], [0.2, 0.8]], (10, 1))
    probs[[3, 5]] = [0.97, 0.03]
    np.save("p.npy", probs)
    write_table("y.csv", [("label", "trusted"), *rows])
    say("audit", "--labels", "y.csv", "--probs", "p.npy")
    assert {row["id"] for row in rows_of("audit/labels.csv")[:2]} == {"3", "5"}
    rows[3] = ("dog", "yes")
    write_table("y.csv", [("label", "trusted"), *rows])
    result = say("audit", "--labels", "y.csv", "--probs", "p.npy")
    found = rows_of("audit/labels.csv")
    assert found[0]["id"] == "5" and found[0]["decided"] == ""
    assert (found[-1]["id"], found[-1]["decided"]) == ("3", "trusted")
    assert "1 trusted" in result.stdout


# --- what is shown while it runs ---


def test_bars_are_shown_on_a_terminal_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert say("audit", photos).stderr == ""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(shell, "progress", lambda title, total: progress.progress(title, total, console=console))
    say("audit", photos)
    for text in ("features of pictures", "neighbors", "noise model", "40/40", "left"):
        assert text in shown.getvalue()


# --- one sentence each ---


def test_what_is_neither_run_nor_data_is_refused() -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("mine")
    assert "empty is no run, as it has no run.toml, and cannot be read as data: " in refused("audit", "empty")
    told = refused("audit", "gone")
    assert "gone is no run" in told and "no folder, table or known data set" in told
    assert "Did you mean 'digits'" in refused("audit", "digit")
    assert "neither a folder nor a .csv" in refused("audit", "notes.txt")
    assert not Path("audit").exists()


def test_a_folder_with_a_run_file_is_a_run(photos: Path) -> None:
    (photos / "run.toml").write_text("")
    assert "run.toml" in say("audit", photos, code=2).stderr


def test_options_of_arrays_do_not_go_with_data(photos: Path) -> None:
    told = refused("audit", photos, "--probs", "p.npy", "--classes", "a,b")
    assert "--probs, --classes do not go with the audit of data, as photos is" in told
    assert "symetric" in refused("audit", photos, "--noise", "symetric:0.5")
    assert "gone.csv" in refused("audit", photos, "--labels", "gone.csv")


def test_features_of_another_length_are_refused(photos: Path) -> None:
    vectors, names = clouds()
    np.save("f.npy", vectors[:39])
    np.save("y.npy", names)
    assert "f.npy has 39 rows for 40 images of photos" in refused("audit", photos, "--features", "f.npy")
    assert "of shape (40, D), a row for each label" in refused("audit", "--labels", "y.npy", "--features", "f.npy")
    np.save("f.npy", np.full((40, 2), np.inf))
    assert "row 0 of features holds a number that is missing" in refused("audit", photos, "--features", "f.npy")
    np.save("f.npy", np.zeros(40))
    assert "must hold numbers of shape (N, features)" in refused("audit", photos, "--features", "f.npy")


def test_labels_that_cannot_be_compared_are_refused(photos: Path) -> None:
    for path in photos.glob("sun/*"):
        path.unlink()
    assert "at least two classes, and all 20 labels here are 'night'" in refused("audit", photos)
    for path in sorted(photos.glob("night/*"))[1:]:
        path.unlink()
    assert "compares labels with each other, and there is one here" in refused("audit", photos)
    np.save("x.npy", np.ones((3, 2)))
    np.save("y.npy", np.array(["cat"] * 3))
    for line in (["x.npy", "--labels", "y.npy"], ["--labels", "y.npy", "--features", "x.npy"]):
        assert "all 3 labels here are 'cat'" in refused("audit", *line)
    assert not Path("audit").exists()


def test_a_class_without_labels_is_a_warning(photos: Path) -> None:
    vectors, names = clouds()
    np.save("f.npy", vectors)
    np.save("y.npy", names)
    told = say("audit", "--labels", "y.npy", "--features", "f.npy", "--classes", "cat,dog,owl").stderr
    assert "Warning: 1 of 3 classes have no label ('owl'), so none of them is suggested" in told
    (photos / "owl").mkdir()
    assert "40 images of 2 classes" in say("audit", photos).stdout


def test_files_that_are_no_audit_are_not_replaced(photos: Path) -> None:
    Path("mine").mkdir()
    Path("mine/labels.csv").write_text("path,label\na.png,x\n")
    assert "is not a table of an audit" in refused("audit", photos, "--out", "mine")
    assert os.listdir("mine") == ["labels.csv"]
    Path("audit").mkdir()
    Path("audit/photos").write_text("mine")
    assert "audit/photos is no folder" in refused("audit", photos)
    for _ in range(2):
        say("audit", photos, "--out", "other")


def test_shares_of_the_true_classes_are_read(photos: Path) -> None:
    say("audit", photos, "--prior", "night=0.5, sun=0.5")
    assert json.loads(Path("audit/photos/audit.json").read_text())["looks_wrong"] == 2
    assert "'sun' has no share" in refused("audit", photos, "--prior", "night=1")
    assert "'night' is no class with its share" in refused("audit", photos, "--prior", "night")
    assert "sum 1.2" in refused("audit", photos, "--prior", "night=0.5,sun=0.7")
    assert "once" in refused("audit", photos, "--prior", "night=0.5,night=0.5")
