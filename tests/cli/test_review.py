"""`scanmix review` on a run, and `scanmix train --labels` with what came out."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app

SMALL = ["--set", "network.widths=[8,16]", "--set", "network.blocks=[1,1]", "--set", "network.stem_stride=2"]
PLAIN = ["--method", "cross_entropy", "--set", "epochs=2", *SMALL]


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a folder of small pictures, one of which has an odd name."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for name, color in {"night": (20, 20, 60), "sun": (240, 200, 40)}.items():
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.normal(color, 25, (20, 20, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / (f"{i}.png" if i else 'o\'d, "d" #?.png'))
    say("train", folder / "photos", "--out", folder / "run", *PLAIN)
    return folder / "run"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def typed(run: Path, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The command as it is typed: its address, and the process."""
    line = [sys.executable, "-m", "scanmix", "review", str(run), "--no-browser", "--who", "ann", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
        assert found
        try:
            yield found[0], process
        finally:
            process.kill()


@pytest.fixture
def server(run: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    with typed(run) as running:
        yield running


def post(url: str, path: str, wish: object) -> None:
    request = urllib.request.Request(url + path, json.dumps(wish).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def test_from_decisions_to_a_run_on_corrected_labels(run: Path, server: tuple[str, "subprocess.Popen[str]"]) -> None:
    url, process = server
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file() and path.parent != run}
    with urllib.request.urlopen(url + "api/table", timeout=20) as answer:
        table = json.load(answer)
    night, sun = (table["classes"].index(name) for name in ("night", "sun"))
    wrong = table["id"].index('night/o\'d, "d" #?.png')
    post(url, "api/decisions", {"rows": [wrong], "choice": "relabel", "label": sun, "since": 0})
    post(url, "api/decisions", {"rows": [table["id"].index("sun/3.png")], "choice": "exclude", "since": 1})
    assert table["given"][wrong] == night
    told = say("review", run, "--no-browser", code=2)
    assert f"{run} is under review already: process {process.pid} at {url}, on " in told.stderr
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and not errors
    assert "2 of 24 labels are decided." in rest
    assert f"Next: scanmix train {run.parent / 'photos'} --labels {run / 'corrected.csv'}" in rest
    assert before == {path: path.read_bytes() for path in before}  # originals and model are as they were
    with (run / "corrected.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and sum(row["decision"] != "" for row in rows) == 2
    assert [json.loads(line)["who"] for line in (run / "review-log.jsonl").read_text().splitlines()] == ["ann", "ann"]

    say("train", run.parent / "photos", "--labels", run / "corrected.csv", *PLAIN)
    corrected = scanmix.open_run("runs/photos-corrected-cross_entropy-0")
    audit = corrected.audit()  # loads again what it was trained on
    given = dict(zip(audit["id"], audit["given"], strict=True))
    assert len(given) == 23 and "sun/3.png" not in given
    assert given['night/o\'d, "d" #?.png'] == "sun" and given["night/5.png"] == "night"
    assert corrected.noise.actual is None  # the old labels are not taken for the true ones


@pytest.mark.skipif(sys.platform != "linux", reason="only there is 127.0.0.2 an address of every machine")
def test_another_address_of_the_machine_answers_if_asked_for_and_behind_the_token(
    run: Path, server: tuple[str, "subprocess.Popen[str]"]
) -> None:
    def answer(url: str) -> int:
        request = urllib.request.Request(url.replace("127.0.0.1", "127.0.0.2"), headers={"Host": "box.lan:8123"})
        try:
            with urllib.request.urlopen(request, timeout=20) as found:
                return int(found.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    with pytest.raises(urllib.error.URLError, match="refused"):
        answer(server[0])
    server[1].send_signal(signal.SIGINT)
    server[1].communicate(timeout=20)
    with typed(run, "--host", "0.0.0.0") as (url, process):
        assert answer(url) == 200 and answer(url.rstrip("/").rpartition("/")[0] + "/") == 403
        assert process.stdout is not None
        assert "Ctrl-C" in process.stdout.readline()
        assert "Whoever has the address can decide" in process.stdout.readline()


def test_an_order_is_one_of_three_and_a_static_copy_has_the_worst(run: Path) -> None:
    assert "random" in say("review", run, "--order", "best", code=2).output
    refused = say("review", run, "--order", "random", "--static", "share.html", code=2)
    assert "--static shows the worst labels; leave out --order" in refused.stderr


def test_a_static_copy(run: Path, tmp_path: Path) -> None:
    result = say("review", run, "--static", "share.html")
    assert "share.html: the 24 most doubtful labels" in result.stdout
    text = (tmp_path / "share.html").read_text(encoding="utf-8")
    assert str(run.parent) not in text and "http-equiv" in text
    assert "no such folder" in say("review", run, "--static", "nowhere/share.html", code=2).stderr


def test_label_studio_decides_and_a_run_on_corrected_labels_follows(run: Path, tmp_path: Path) -> None:
    # The review of a run is in its folder, so this one works on a copy.
    shutil.copytree(run, "run", ignore=shutil.ignore_patterns("corrected.csv", "review-log.jsonl"))
    wrote = say("review", "run", "--to", "tasks.json", "--order", "random")  # none is doubtful
    assert "tasks.json: 24 labels to decide in Label Studio; tasks-labels.xml: its setup" in wrote.stdout
    assert "scanmix review run --from EXPORT.json" in wrote.stdout
    tasks = json.loads(Path("tasks.json").read_text(encoding="utf-8"))
    wrong = next(task for task in tasks if task["data"]["scanmix_id"].endswith("#?.png"))
    assert wrong["data"]["image"] == "/data/local-files/?d=photos/night/o%27d%2C%20%22d%22%20%23%3F.png"
    for task in tasks:
        result = task.pop("predictions")[0]["result"]
        choice = "sun" if task is wrong else task["data"]["given"]
        task["annotations"] = [{"was_cancelled": False, "result": [{**result[0], "value": {"choices": [choice]}}]}]
    Path("export.json").write_text(json.dumps(tasks))
    took = say("review", "run", "--from", "export.json", "--who", "bob")
    assert "export.json: 24 labels decided, 0 decided anew, 0 as they were already" in took.stdout
    assert "24 of 24 labels are decided." in took.stdout
    assert f"Next: scanmix train {run.parent / 'photos'} --labels run/corrected.csv" in took.stdout
    assert {json.loads(line)["who"] for line in Path("run/review-log.jsonl").read_text().splitlines()} == {"bob"}
    with Path("run/corrected.csv").open(encoding="utf-8", newline="") as file:
        changed = [row["id"] for row in csv.DictReader(file) if row["label"] != row["given"]]
    assert changed == ['night/o\'d, "d" #?.png']
    say("train", run.parent / "photos", "--labels", "run/corrected.csv", "--out", "second", *PLAIN)
    assert (scanmix.open_run("second").audit()["decided"] != "").all()

    assert (
        "tasks.xml: 0 labels to decide in CVAT" in say("review", "run", "--to", "tasks.xml", "--order", "random").stdout
    )
    assert "tasks.xml: 0 labels decided" in say("review", "run", "--from", "tasks.xml").stdout
    assert "tasks.json: 0 labels" in say("review", "run", "--to", "tasks.json").stdout  # its own file is replaced


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "tasks.csv"], "tasks.csv must end in .json for Label Studio, or in .xml for CVAT"),
        (["--to", "nowhere/tasks.json"], "no such folder"),
        (["--to", "mine.json"], "mine.json is there and is not a file of scanmix review --to; it would be lost"),
        (["--to", "other.json"], "other-labels.xml is there and is not a file of scanmix review --to"),
        (["--from", "export.csv"], "export.csv must be .json of Label Studio, or .xml or .zip of CVAT"),
        (["--from", "export.json"], "export.json: no such file"),
        (["--from", "mine.json", "--to", "tasks.json"], "--static, --to and --from are three things to do"),
        (["--prefix", "https://host/"], "--prefix belongs to --to"),
    ],
)
def test_files_for_other_tools_are_checked_before_any_work(run: Path, options: list[str], sentence: str) -> None:
    Path("mine.json").write_text("{}")
    Path("other-labels.xml").write_text("<x/>")
    assert sentence in say("review", run, *options, code=2).stderr


def test_what_cannot_be_reviewed_is_told(run: Path, tmp_path: Path) -> None:
    assert "no such folder" in say("review", "nowhere", code=2).stderr
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.toml").write_bytes((run / "run.toml").read_bytes())
    assert "unfinished" in say("review", "half", "--no-browser", code=2).stderr
    assert "nothing.csv: no such file" in re.sub(
        r"labels \S*/", "labels ", say("train", run.parent / "photos", "--labels", "nothing.csv", *PLAIN, code=2).stderr
    )
    assert not Path("runs").exists()
