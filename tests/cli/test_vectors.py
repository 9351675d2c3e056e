"""Feature vectors on the command line: predict, export, doctor, report, audit; each as for images."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app
from scanmix.doctor import measure
from scanmix.export.loading import load_classifier
from scanmix.report.command import train_command
from scanmix.training import open_run

QUICK = ["--method", "dividemix", "--set", "epochs=14", "--set", "warmup=12", "--set", "batch_size=16",
         "--set", "network.hidden=[16,8]"]  # fmt: skip
NAMES = np.array(["apple", "bean", "corn", "dill"])


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    return result


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four clouds in eight dimensions, and their names."""
    draws, labels = np.random.default_rng(seed), np.arange(count) % 4
    return (draws.normal(size=(count, 8)) + 5 * np.eye(8)[labels]).astype(np.float32), NAMES[labels]


def keep(name: str, vectors: np.ndarray, labels: np.ndarray) -> None:
    np.save(f"{name}.npy", vectors)
    Path(f"{name}.csv").write_text("label\n" + "\n".join(labels) + "\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measure, "SECONDS", 0.01)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks, a fifth of whose labels were wrong; two vectors are the same under two labels."""
    folder = tmp_path_factory.mktemp("vectors")
    vectors, labels = clouds(120, seed=0)
    labels[:24] = np.roll(labels[:24], 1)
    vectors[119], labels[118:] = vectors[118], ["apple", "bean"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        keep("embeddings", vectors, labels)
        Path("embeddings.csv").rename("y.csv")
        keep("held_out", *clouds(120, seed=1))
        say("train", "embeddings.npy", "--labels", "y.csv", "--test", "held_out.npy", *QUICK, "--out", "run")
    return folder / "run"


# --- predict ---


def test_predict_writes_a_row_for_each_vector(run: Path) -> None:
    vectors, labels = clouds(5000, seed=2)  # more than a chunk
    np.save("new.npy", vectors.astype(np.float64))
    result = say("predict", run, "new.npy", "--top", 4)
    assert "Wrote predictions.csv: 5000 of 5000 vectors." in result.stdout
    rows, probs = rows_of("predictions.csv"), open_run(run).predict_proba(vectors)
    assert list(rows[0])[:4] == ["id", "class", "probability", "class_2"]
    assert [row["id"] for row in rows] == [f"new/{i}" for i in range(5000)]
    assert np.mean([row["class"] == label for row, label in zip(rows, labels, strict=True)]) > 0.9
    found = np.array([[float(row[f"probability{end}"]) for end in ("", "_2", "_3", "_4")] for row in rows])
    assert found == pytest.approx(np.sort(probs)[:, ::-1], abs=1e-6)


def test_predict_skips_rows_that_are_no_numbers(run: Path) -> None:
    vectors, _ = clouds(6, seed=2)
    vectors[1, 3], vectors[4] = np.nan, np.inf
    np.save("new.npy", vectors)
    np.save("more.npy", vectors[:1])
    result = say("predict", run, "new.npy", "more.npy", "--out", "out.csv")
    assert "skipped new/1: infinite or not a number" in result.stderr and "skipped new/4" in result.stderr
    assert "5 of 7 vectors; 2 could not be read" in result.stdout
    assert [row["id"] for row in rows_of("out.csv")] == ["new/0", "new/2", "new/3", "new/5", "more/0"]
    np.save("new.npy", vectors[[1, 4]])
    assert "not one of 2 rows holds numbers alone" in say("predict", run, "new.npy", code=2).stderr
    assert not Path("predictions.csv").exists()


def test_predict_calibrates_on_labeled_vectors_that_are_new(run: Path) -> None:
    vectors, labels = clouds(400, seed=3)
    labels[::5] = np.roll(labels[::5], 1)
    keep("checked", vectors, labels)
    np.save("new.npy", vectors[:50])
    say("predict", run, "new.npy", "--out", "plain.csv")
    result = say("predict", run, "new.npy", "--out", "tempered.csv", "--calibrate", "checked.npy")
    assert "from 400 labels of which" in result.stdout
    plain, tempered = rows_of("plain.csv"), rows_of("tempered.csv")
    assert [row["class"] for row in plain] == [row["class"] for row in tempered]
    assert [row["probability"] for row in plain] != [row["probability"] for row in tempered]
    learned = run.parent / "embeddings.npy"
    learned.with_suffix(".csv").write_bytes((run.parent / "y.csv").read_bytes())
    refused = say("predict", run, "new.npy", "--calibrate", learned, code=2).stderr
    assert "was trained on these vectors" in refused


def test_predict_says_what_is_no_array_of_these_features(run: Path) -> None:
    np.save("narrow.npy", np.zeros((3, 5)))
    np.save("flat.npy", np.zeros(8))
    np.savez("several.npz", a=np.zeros((3, 8)))
    Path("other").mkdir()
    np.save("other/new.npy", np.zeros((3, 8)))
    np.save("new.npy", np.zeros((3, 8)))
    Path("fake.npy").write_bytes(Path("several.npz").read_bytes())
    for paths, words in (
        (["narrow.npy"], "has 5 features; "),
        (["flat.npy"], "numbers of shape (N, features)"),
        (["gone.npy"], "no such file"),
        (["several.npz"], "takes vectors, one a row of a .npy file"),
        (["fake.npy"], "holds several arrays"),
        (["other"], "takes vectors, one a row of a .npy file"),
        (["new.npy", "other/new.npy"], "two files are called new.npy"),
    ):
        assert words in say("predict", run, *paths, code=2).stderr
    assert not Path("predictions.csv").exists()


# --- export ---


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_an_exported_folder_predicts_the_same_table(run: Path, kind: str) -> None:
    result = say("export", run, "--out", "out", "--format", kind)
    assert f"Wrote out: README.md, SHA256SUMS, model.json, model.{kind}." in result.stdout
    assert ("Checked on 120 training vectors: probabilities differ" in result.stdout) == (kind == "onnx")
    assert "Next: scanmix predict out new.npy" in result.stdout
    vectors, labels = clouds(300, seed=4)
    keep("new", vectors, labels)
    say("predict", "out", "new.npy", "--top", 4, "--out", "out.csv")
    say("predict", run, "new.npy", "--top", 4, "--out", "run.csv")
    for one, two in zip(rows_of("out.csv"), rows_of("run.csv"), strict=True):
        assert one["id"] == two["id"] and one["class"] == two["class"]
        assert float(one["probability"]) == pytest.approx(float(two["probability"]), abs=1e-4)
    exported = load_classifier(Path("out"))
    assert (exported.kind, exported.channels, exported.class_names) == ("vector", 8, tuple(NAMES))
    expected = open_run(run).predict_proba(vectors)
    assert np.abs(exported.predict_proba(vectors) - expected).max() <= 1e-4
    assert np.abs(exported.predict_proba(vectors[:, :, None, None]) - expected).max() <= 1e-4
    assert "from 300 labels" in say("predict", "out", "new.npy", "--calibrate", "new.npy").stdout


def test_an_onnx_folder_predicts_without_torch(run: Path) -> None:
    say("export", run, "--out", "out")
    np.save("new.npy", clouds(20, seed=4)[0])
    absent = ("torch", "safetensors", "sklearn", "scipy", "onnx")
    code = (
        f"import sys; sys.modules |= dict.fromkeys({absent!r}); from scanmix.cli import app; "
        "app(['predict', 'out', 'new.npy'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(scanmix.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    say("predict", "out", "new.npy", "--out", "here.csv")
    assert Path("predictions.csv").read_bytes() == Path("here.csv").read_bytes()


def test_the_card_and_the_file_speak_of_vectors(run: Path) -> None:
    say("export", run, "--out", "out")
    card = Path("out/README.md").read_text(encoding="utf-8")
    for words in ("A classifier of feature vectors", "| feature vectors | 8 features |", "(N, 8)", "new.npy"):
        assert words in card
    assert "image" not in card and "picture" not in card.lower()
    start = card.index("```python") + len("```python\n")
    snippet = card[start : card.index("```", start)]
    subprocess.run([sys.executable, "-c", snippet], cwd="out", check=True)
    session = load_classifier(Path("out")).session  # type: ignore[attr-defined]
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("vectors", "tensor(float)", ["N", 8])
    say("export", run, "--out", "weights", "--format", "safetensors")
    card = Path("weights/README.md").read_text(encoding="utf-8")
    start = card.index("```python") + len("```python\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(scanmix.__file__).parents[1])}
    snippet = card[start : card.index("```", start)]
    subprocess.run([sys.executable, "-c", snippet], cwd="weights", check=True, env=environment)


def test_other_vectors_than_those_of_the_training_are_refused(run: Path) -> None:
    say("export", run, "--out", "out")
    for vectors in (np.zeros((2, 7), np.float32), np.zeros((2, 8)), np.zeros((2, 8, 2, 2), np.float32)):
        with pytest.raises(scanmix.config.UserError, match=r"vectors must be float32 of shape \(N, 8\)"):
            load_classifier(Path("out")).predict_proba(vectors)


def test_without_its_data_a_file_is_checked_on_drawn_vectors(run: Path) -> None:
    (run.parent / "y.csv").rename(run.parent / "gone.csv")
    try:
        result = say("export", run, "--out", "out")
    finally:
        (run.parent / "gone.csv").rename(run.parent / "y.csv")
    assert "Checked on 200 random vectors (the training vectors cannot be loaded again)" in result.stdout


# --- doctor ---


def checked(*arguments: object, code: int = 0) -> dict[str, Any]:
    """What a script reads of a checkup that ends with this exit code."""
    say("doctor", *arguments, "--json", "found.json", code=code)
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert found["can_train"] is (code == 0)
    return found


def where(found: dict[str, Any], words: str) -> list[str]:
    """The places of the one finding that has these words."""
    (finding,) = [finding for finding in found["findings"] if words in finding["what"]]
    assert finding["fix"]
    return [str(place) for place in finding["where"]]


def test_every_planted_fault_is_found_and_named() -> None:
    vectors, labels = clouds(240, seed=0)
    labels = labels.astype(object)
    labels[[0, 1, 2]] = ["rare", "rare", "Bean"]
    vectors[8, 2], vectors[9] = np.nan, -np.inf
    vectors[20], vectors[30] = vectors[21], vectors[34]
    vectors[:, 5] = 0.25
    vectors[:, 6] *= 1e5
    keep("x", vectors, labels)
    found = checked("x.npy", code=1)
    assert where(found, "2 vectors with infinite or missing numbers") == ["x/8", "x/9"]
    assert where(found, "fewer than 10 vectors") == ["Bean (1)", "rare (2)"]
    assert where(found, "letter case or blanks") == ["'Bean'", "'bean'"]
    assert where(found, "1 of 8 features the same") == ["column 5"]
    assert next(iter(where(found, "the largest deviation"))).startswith("column 6 (")
    assert where(found, "under two labels (exact") == ["x/20 (apple) = x/21 (bean)"]
    assert where(found, "twice or more (exact") == ["x/30 (corn) = x/34 (corn)"]
    assert [finding["level"] for finding in found["findings"]].count("fault") == 1
    assert (found["vectors"], found["features"]) == (238, 8) and "estimate" not in found
    text = say("doctor", "x.npy", code=1).stdout
    assert "x: 238 vectors of 6 classes (8 features), no test vectors." in text and "cannot start" in text
    assert "image" not in text and "picture" not in text


def test_vectors_without_a_fault_have_a_recipe_and_an_estimate() -> None:
    keep("x", *clouds(120, seed=0))
    Path("x.csv").rename("y.csv")
    found = checked("x.npy", "--labels", "y.csv")
    assert found["findings"] == [] and found["advice"] == [] and found["recipe"] == "vectors/any/scanmix"
    assert found["classes"] == dict.fromkeys(NAMES, 30)
    assert sum(found["estimate"]["stages"]["training"]) > 0 < found["estimate"]["memory"]
    text = say("doctor", "x.npy", "--labels", "y.csv", *QUICK).stdout
    assert "Nothing odd was found." in text and "Recipe: vectors/any/dividemix." in text
    line = text.rstrip().splitlines()[-1].partition(": ")[2]
    words = shlex.split(line)
    assert words[:3] == ["scanmix", "train", "x.npy"] and words[words.index("--labels") + 1] == "y.csv"
    say(*shlex.split(line)[1:], "--out", "run")  # what it says can be typed


def test_faults_of_the_files_are_faults_and_no_usage_errors() -> None:
    vectors, labels = clouds(40, seed=0)
    keep("x", vectors, labels[:39])
    assert "x.npy has 40 rows, but x.csv has 39 labels" in checked("x.npy", code=1)["findings"][0]["what"]
    keep("x", vectors, np.array([*labels[:39], ""]))
    Path("x.csv").write_text("id,label\n" + "\n".join(f"{i},{label}" for i, label in enumerate([*labels[:39], ""])))
    assert "row 40 of x.csv has no label" in checked("x.npy", code=1)["findings"][0]["what"]
    Path("x.csv").write_text("id,label\n" + "\n".join(f"same,{label}" for label in labels))
    assert "40 rows, but 1 different ids" in checked("x.npy", code=1)["findings"][0]["what"]
    keep("x", vectors[:, 0], labels)
    assert "numbers of shape (N, features)" in checked("x.npy", code=1)["findings"][0]["what"]
    keep("x", vectors, np.full(40, "a"))
    assert where(checked("x.npy", code=1), "1 class with vectors") == ["a"]
    keep("x", np.full((40, 2), np.nan), labels)
    assert len(where(checked("x.npy", code=1), "40 vectors with infinite")) == 40
    keep("x", vectors[:8], labels[:8])
    assert where(checked("x.npy", code=1), "20 neighbors of each vector, and there are 8 vectors") == []


def test_what_is_no_data_at_all_is_a_usage_error() -> None:
    keep("x", *clouds(40, seed=0))
    assert "gone.npy: no such file" in say("doctor", "gone.npy", code=2).stderr
    assert "no such file" in say("doctor", "x.npy", "--labels", "gone.npy", code=2).stderr
    assert "are for images" in say("doctor", "x.npy", "--size", 16, code=2).stderr
    assert "unknown key 'network.widths'" in say("doctor", "x.npy", "--set", "network.widths=[4]", code=2).stderr
    assert "labels= is for vectors" in say("doctor", "digits", "--labels", "x.csv", code=2).stderr


# --- what is done with a run ---


def test_report_and_audit_name_neighbors_by_id_and_label(run: Path) -> None:
    say("audit", run, "--out", "audit")
    table = rows_of("audit/labels.csv")
    assert len(table) == 120 and {row["id"] for row in table} == {f"embeddings/{i}" for i in range(120)}
    copies = {row["id"]: row["reason"] for row in table if row["kind"] == "duplicate"}
    assert copies["embeddings/118"] == "an exact copy stands under another label: embeddings/119"
    say("report", run, "--out", "report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "120 vectors of 4 classes" in page and "The 48 most doubtful" in page and "<img" not in page
    card = page[page.index('<li class="card">') : page.index("</li>\n<li", page.index('<li class="card">'))]
    assert card.count("embeddings/") >= 7  # its own id and those of six neighbors
    assert 'class="near ids" aria-label="Nearest vectors with their labels"' in card
    assert "image" not in page.partition("</style>")[2]


def test_the_line_of_a_report_makes_the_same_run_again(run: Path) -> None:
    command = train_command(open_run(run))
    assert command is not None
    say(*shlex.split(command)[1:], "--out", "again")
    assert open_run("again").settings.config_hash() == open_run(run).settings.config_hash()


def test_review_says_that_there_is_nothing_to_look_at(run: Path) -> None:
    assert "nothing to look at" in say("review", run, "--no-browser", code=2).output
