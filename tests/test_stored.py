"""What earlier versions wrote is read by this one: runs, checkpoints, caches, labels, exports, tables of results.

`tests/stored/README.md` says what is there. Loading, keys and files are compared to the bit on every processor. What
is computed anew is compared to the bit where processor and libraries are those that made the files, else with the
tolerances of the golden curves.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import scanmix
from scanmix.__main__ import main
from tests.stored.bits import digest, tensors
from tests.stored.compare import (
    Place,
    files,
    lines_of,
    rows_of,
    same_results,
    same_rows,
    same_settings,
    same_table,
    same_tensors,
)

STORED = Path(__file__).with_name("stored")
VERSIONS = sorted(path.parent.name for path in STORED.glob("*/about.json"))
FINISHED = ("image", "second", "vectors", "moco", "semantic", "advised")


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "here"
    shutil.copytree(STORED / request.param, folder)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    for path in [*folder.glob("runs/*/run.toml"), *folder.glob("states/*/run.toml")]:  # the data have moved
        path.write_bytes(path.read_bytes().replace(about["made_in"].encode(), str(folder).encode()))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SCANMIX_CACHE", str(folder / "cache"))
    return Place(folder, about)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """A function that runs a command as `python -m scanmix` does, and returns what it printed."""

    def say(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["scanmix", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert end.value.code in (0, None), printed.out + printed.err
        return printed.out

    yield say


def test_something_is_stored() -> None:
    assert "0.1.0" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_stored_tensors_are_as_they_were_written(version: str) -> None:
    folder = STORED / version
    kept = json.loads((folder / "about.json").read_text(encoding="utf-8"))["tensors"]
    assert kept == {name: digest(tensors(folder / name)) for name in kept}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert kept.keys() == {name for name in found if name.endswith((".pt", ".safetensors", ".unfinished"))}


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_opened_and_nothing_of_it_changes(name: str, place: Place, said: Any) -> None:
    before = files(place.folder)
    run = scanmix.open_run(f"runs/{name}")
    assert run.finished and len(run.metrics) == len(lines_of(Path(f"runs/{name}/metrics.jsonl")))
    assert sorted(run.audit()["id"]) == sorted(row["id"] for row in rows_of(Path(f"runs/{name}/labels.csv")))
    said("resume", f"runs/{name}")
    # The same words give the same settings and the same fingerprint of the data, or the run would be refused.
    said(*place.words(name))
    assert files(place.folder) == before


@pytest.mark.parametrize("name", FINISHED)
def test_the_same_words_make_the_same_run(name: str, place: Place, said: Any) -> None:
    """Also what a run finds in the cache: another key would leave another file there."""
    before = files(Path("cache"))
    said(*place.words(name, "runs/new"))
    same_settings(Path("runs/new/run.toml"), Path(f"runs/{name}/run.toml"))
    same_results(place, Path("runs/new"), Path(f"runs/{name}"))
    assert files(Path("cache")) == before


def test_a_killed_run_goes_on_and_ends_as_it_would_have_ended(place: Place, said: Any) -> None:
    cache = files(Path("cache"))
    kept = tensors(Path("runs/killed/checkpoint/last.pt"))
    assert len(lines_of(Path("runs/killed/metrics.jsonl"))) == kept["epoch"] + 1, "killed after the line of an epoch"
    said("resume", "runs/killed")
    same_results(place, Path("runs/killed"), Path("ended/killed"))
    assert files(Path("cache")) == cache, "the state holds what pre-training gave"
    said("reproduce", "elbo", "runs/killed", "--out", "drawn")
    assert Path("drawn/elbo.svg").is_file()


def test_a_killed_run_that_begins_anew_finds_its_pretraining_in_the_cache(place: Place, said: Any) -> None:
    cache = files(Path("cache"))
    said(*place.words("killed", "runs/new"))
    assert files(Path("cache")) == cache
    same_settings(Path("runs/new/run.toml"), Path("runs/killed/run.toml"))
    same_results(place, Path("runs/new"), Path("ended/killed"))


def test_a_stage_that_was_killed_goes_on_from_its_last_epoch(place: Place, said: Any) -> None:
    (unfinished,) = Path("cache").glob("*.unfinished")
    whole = unfinished.with_suffix(".safetensors")
    state = tensors(unfinished)
    cache, steps = files(Path("cache")), 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += not whole.exists()

    hook = register_optimizer_step_post_hook(count)
    said("resume", "runs/stage")
    hook.remove()
    assert steps == 2 * (3 - state["epoch"]), "two steps in each of three epochs"
    same_results(place, Path("runs/stage"), Path("ended/stage"))
    new = files(Path("cache")).keys() - cache.keys()
    assert new == {path.name for path in Path("ended").glob("*.safetensors")} and whole.name in new
    for name in new:
        same_tensors(place, Path("cache") / name, Path("ended") / name)
    left = {name: content for name, content in files(Path("cache")).items() if name not in new}
    assert left == {name: content for name, content in cache.items() if ".unfinished" not in name}


@pytest.mark.parametrize("method", sorted({path.name for path in STORED.glob("*/states/*")}))
def test_the_state_of_every_method_is_read(method: str, place: Place, said: Any) -> None:
    folder = Path("states") / method
    if not folder.is_dir():
        pytest.skip(f"{place.about['version']} had no {method}")
    said("resume", folder)
    same_results(place, folder, Path("ended") / folder)


def test_a_run_begins_with_the_bits_of_the_cache(place: Place) -> None:
    """The first state of a label-free method is what was read from the cache, whatever the processor."""
    before = tensors(Path("runs/moco/checkpoint/before.pt"))
    found = before["state"]["peers"][0]["weights"]
    assert any(
        stored.keys() <= found.keys() and all(torch.equal(found[name], stored[name]) for name in stored)
        for stored in (
            {name: tensor for name, tensor in tensors(path).items() if name.startswith("encoder.")}
            for path in Path("cache").glob("scan-*.safetensors")
        )
    )


@pytest.mark.parametrize("name", ["image", "vectors", "moco"])
def test_a_model_is_made_again_from_the_checkpoint_to_the_bit(name: str, place: Place, said: Any) -> None:
    run, kept = Path("runs") / name, Path("kept")
    shutil.copytree(run, kept)
    shutil.rmtree(run / "model")
    said("resume", run)
    for part in ("model/model.safetensors", "metrics.jsonl", "checkpoint/last.pt"):
        assert (run / part).read_bytes() == (kept / part).read_bytes(), part
    now, before = (json.loads((top / "model/model.json").read_text(encoding="utf-8")) for top in (run, kept))
    assert now.keys() - before.keys() <= {"self_supervised"}, "since 0.2.0"
    assert now["network"].pop("stem_norm", False) is False, "since 0.2.0"
    assert {key: now[key] for key in before if key != "sha256"} == {
        key: before[key] for key in before if key != "sha256"
    }
    same_results(place, run, kept)


@pytest.mark.parametrize("name", ["image", "vectors"])
def test_a_run_goes_on_from_the_checkpoint_before_the_last(name: str, place: Place, said: Any) -> None:
    run, kept = Path("runs") / name, Path("kept")
    shutil.copytree(run, kept)
    shutil.rmtree(run / "model")
    (run / "checkpoint" / "last.pt").unlink()
    said("resume", run)
    same_results(place, run, kept)


@pytest.mark.parametrize(
    ("model", "data", "kept"),
    [
        ("runs/image", "photos", "image"),
        ("exported/onnx", "photos", "image"),
        ("runs/vectors", "vectors.npy", "vectors"),
        ("exported/safetensors", "vectors.npy", "vectors"),
    ],
)
def test_predictions_are_the_stored_ones(model: str, data: str, kept: str, place: Place, said: Any) -> None:
    if model == "exported/onnx":
        pytest.importorskip("onnxruntime")
    path, top = Path(f"predicted/{kept}.csv"), ["--top", "2"] if kept == "image" else []
    then = path.read_text(encoding="utf-8")
    said("predict", model, data, *top, "--out", path)  # over the stored table, which is known for one
    same_rows(path.read_text(encoding="utf-8"), then)


def test_an_exported_model_is_that_of_the_run(place: Place, said: Any) -> None:
    said("export", "runs/vectors", "--out", "new", "--format", "safetensors")
    for name in ("model.json", "model.safetensors"):
        assert (Path("new") / name).read_bytes() == (Path("exported/safetensors") / name).read_bytes()


def test_a_run_is_evaluated_on_its_test_data(place: Place, said: Any) -> None:
    share = lines_of(Path("runs/image/metrics.jsonl"))[-1]["accuracy"]
    assert f"{100 * share:.1f} %" in said("evaluate", "runs/image")


@pytest.mark.parametrize("name", ["image", "second", "vectors"])
def test_labels_are_audited_from_what_the_run_keeps(name: str, place: Place, said: Any) -> None:
    run, kept = Path("runs") / name, STORED / place.about["version"] / "runs" / name
    for folder in ("photos", "vectors.npy"):
        Path(folder).rename(f"{folder}.gone")
    said("audit", run)
    same_table(place, run / "labels.csv", kept / "labels.csv")
    if (kept / "audit.json").is_file():
        now, then = ((folder / "audit.json").read_text(encoding="utf-8") for folder in (run, kept))
        assert json.loads(now).keys() - json.loads(then).keys() == {"readings", "decisions_needed"}, "since 0.2.0"
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = [parquet.read_table(folder / "labels.parquet").to_pydict() for folder in (run, kept)]
        assert columns[0].keys() == columns[1].keys() and sorted(columns[0]["id"]) == sorted(columns[1]["id"])


def test_a_report_replaces_the_stored_one(place: Place, said: Any) -> None:
    page = Path("runs/image/report.html")
    assert page.is_file()
    said("report", "runs/image", "--compare", "runs/second")
    assert rows_of(Path("runs/image/labels.csv"))[0]["id"] in page.read_text(encoding="utf-8")


def decided() -> dict[str, str]:
    """Decision by id, in the table of corrected labels."""
    return {row["id"]: row["decision"] for row in rows_of(Path("runs/image/corrected.csv")) if row["decision"]}


def test_decisions_stand_in_a_static_page(place: Place, said: Any) -> None:
    said("review", "runs/image", "--static", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    content = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert content is not None
    rows = json.loads(content[1])["state"]["rows"]
    assert len(decided()) == len([code for _, code, _ in rows if code]) == 5


def test_corrected_labels_are_written_again_from_the_log(place: Place) -> None:
    path, log = Path("runs/image/corrected.csv"), Path("runs/image/review-log.jsonl")
    kept = path.read_bytes(), log.read_bytes()
    path.unlink()
    line = [sys.executable, "-u", "-m", "scanmix", "review", "runs/image", "--no-browser"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "http://" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
    assert (sorted(path.read_bytes().splitlines()), log.read_bytes()) == (sorted(kept[0].splitlines()), kept[1])


def test_corrected_labels_are_a_table_to_train_on(place: Place) -> None:
    text = Path("runs/image/corrected.csv").read_text(encoding="utf-8")
    Path("photos.csv").write_text(text.replace(place.about["made_in"], str(place.folder)), encoding="utf-8")
    with pytest.warns(UserWarning, match="exclude"):
        examples, _ = scanmix.load("photos.csv")
    rows = [row for row in rows_of(Path("photos.csv")) if row["decision"] != "exclude"]
    labels = [examples.class_names[label] for label in examples.labels.tolist()]
    assert labels == [row["label"] for row in rows] and len(labels) == 22


def test_a_noise_file_gives_its_labels_and_is_drawn_again_to_the_bit(place: Place, said: Any) -> None:
    path = Path("noise.json")
    kept = path.read_bytes()
    examples, _ = scanmix.load("photos")
    noisy = scanmix.add_noise(examples, "file", path=path)
    assert noisy.labels.tolist() == json.loads(kept)["noise_labels"] != examples.labels.tolist()
    said("noise", "photos", "--rate", "0.4", "--seed", "1", "--out", path)
    assert path.read_bytes() == kept


def test_a_logger_is_sent_nothing_twice(place: Place, said: Any) -> None:
    pytest.importorskip("tensorboard")
    before = files(Path("runs/image"))
    said("resume", "runs/image", "--logger", "tensorboard")
    assert files(Path("runs/image")) == before


def test_a_table_of_results_is_written_from_its_runs_without_training(
    place: Place, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise AssertionError("the run that is there is not known for the one of the table")

    monkeypatch.setattr(subprocess, "Popen", train)
    line = ["reproduce", "digits-small", "--only", "cross_entropy,symmetric:0.2", "--jobs", "1"]
    runs, table, store = Path("results/runs"), Path("results/digits-small.csv"), Path("results/store.jsonl")
    kept = table.read_bytes(), store.read_bytes()
    before = files(runs / "digits-small" / "cross_entropy-symmetric-0.2-seed0")
    said(*line)
    assert (table.read_bytes(), store.read_bytes()) == kept, "the run is counted already"
    store.unlink()
    said(*line)
    row, stored = json.loads(store.read_bytes()), json.loads(kept[1])
    newer = {"plan", "asked_noise", "estimated_noise", "stages"}
    assert {key: row[key] for key in row.keys() - newer} == stored, "with the same hash of its settings"
    assert files(runs / "digits-small" / "cross_entropy-symmetric-0.2-seed0") == before


def test_the_table_of_audits_is_written_from_its_parts(place: Place, said: Any) -> None:
    pytest.importorskip("cleanlab")
    table, page = Path("results/audit.csv"), Path("results/audit.md")
    kept = table.read_bytes(), rows(page)
    before = files(Path("results/runs/audit-digits"))
    table.unlink()
    page.unlink()
    said("reproduce", "audit-digits", "--seeds", "1")
    assert (table.read_bytes(), rows(page)) == kept
    assert files(Path("results/runs/audit-digits")) == before


def rows(page: Path) -> list[str]:
    """The tables of a page; the sentences between them may be told in other words."""
    return [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
