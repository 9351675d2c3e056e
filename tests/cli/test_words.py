"""What reaches a terminal and what is written over: names of strangers, odd settings, files of other kinds."""

import csv
import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import scanmix
from scanmix import __main__
from scanmix.cli import app
from scanmix.cli.shell import check_writable, print_table
from scanmix.cli.shell import say as show
from scanmix.config import UserError
from scanmix.data.names import visible
from scanmix.files.tables import read_records
from scanmix.model import Model

STRANGE = ("=1+1", "d\rg", "\x1b[31mred")
TINY = ["--method", "cross_entropy", "--set", "epochs=1", "--set", "network.widths=[4]", "--set", "network.blocks=[1]"]


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert not {"\x1b", "\r", "\x07", "\x9b", "\u202e"} & set(result.output), "a terminal would obey"
    return result


def refused(*arguments: object) -> str:
    last = say(*arguments, code=2).stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and len(last) < 600
    return last


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of classes with strange names, a table of them, and a run on them."""
    folder = tmp_path_factory.mktemp("strange")
    rows = []
    for number, name in enumerate(STRANGE):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (16, 16), 60 * number + 9 * i).save(folder / "photos" / name / f"@{i}.png")
            rows.append(f'"{name}/@{i}.png","{number}"\n')
    (folder / "t.csv").write_text("path,label\n" + "".join(rows), newline="")
    os.environ["SCANMIX_CACHE"] = str(folder / "cache")
    say("train", folder / "photos", *TINY, "--out", folder / "run")
    return folder


# --- words ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 日本語 é 👍", "plain, 日本語 é 👍"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("a\rb\x00\x7f\x9b", r"a\rb\x00\x7f\x9b"),
        ("\u202egnp.exe\u2066\u2028", r"\u202egnp.exe\u2066\u2028"),
        (os.fsdecode(b"out_\xff"), r"out_\xff"),
        ("\ud800", r"\ud800"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible("a\nb\tc", allowed="") == r"a\nb\tc"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_words_reach_a_strict_stream_of_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
    for stream, content in written.items():
        wrapped = io.TextIOWrapper(content, encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, stream, wrapped)
    name = os.fsdecode(b"\xff") + "\u65e5"
    show(f"Wrote {name}")
    show(f"Error: {name}", err=True)
    print_table(f"of {name}", ["class"], [[name + "\x1b\n"]])
    spelled = "\u65e5" if encoding == "utf-8" else r"\u65e5"
    out, err = (content.getvalue().decode(encoding) for content in written.values())
    assert rf"Wrote \xff{spelled}" in out and rf"Error: \xff{spelled}" in err
    assert rf"\xff{spelled}\x1b\n" in out and "\x1b" not in out + err


def test_strange_names_go_through_every_command_and_come_back(made: Path) -> None:
    run = made / "run"
    names = set(STRANGE)
    rows = read_records(run / "labels.csv", ("given", "suggested", "path"))
    assert len(rows) == 12 and {row["given"] for row in rows} == names
    assert all(Path(row["path"]).is_file() for row in rows)
    raw = list(csv.reader(io.StringIO((run / "labels.csv").read_bytes().decode(), newline=""), strict=True))
    assert {row[2] for row in raw[1:]} == {"'=1+1", "d\rg", "\x1b[31mred"}
    assert r"\x1b[31mred" in say("audit", run, "--out", "again").stdout
    assert Path("again/labels.csv").read_bytes() == (run / "labels.csv").read_bytes()
    assert "looks" in say("resume", run).stdout or "look wrong" in say("resume", run).stdout
    say("evaluate", run, "--data", made / "photos")
    say("predict", run, made / "photos", "--out", "p.csv", "--top", 3)
    found = read_records(Path("p.csv"), ("path", "class", "class_2", "class_3"))
    assert len(found) == 12 and all({row["class"], row["class_2"], row["class_3"]} == names for row in found)
    say("predict", run, "p.csv", "--out", "q.csv")
    assert len(read_records(Path("q.csv"), ("path",))) == 12
    assert r"\x1b" in refused("predict", run, "no\x1b[31m.png")


def test_a_name_that_is_no_utf8_is_no_reason_to_stop(made: Path) -> None:
    for arguments in (
        ["predict", made / "run", made / "photos", "--out", os.fsdecode(b"out_\xff.csv")],
        ["audit", made / "run", "--out", os.fsdecode(b"out_\xff")],
        ["report", made / "run", "--out", os.fsdecode(b"out_\xff.html")],
        ["noise", "digits", "--rate", 0.2, "--out", os.fsdecode(b"out_\xff.json")],
    ):
        assert rb"out_\xff" in say(*arguments).stdout_bytes
    assert len(list(Path().iterdir())) == 4


# --- files of other kinds ---


def test_predictions_replace_predictions_and_nothing_else(made: Path) -> None:
    photos, run = made / "photos", made / "run"
    mine = {"labels.csv": "path,label\na.png,x\n", "notes.txt": "mine", "p.parquet": "mine", "q.jsonl": '{"id": 1}'}
    for name, text in mine.items():
        Path(name).write_text(text)
        if not name.endswith(".parquet") or pytest.importorskip("pyarrow"):
            assert "is not a table of predictions; it would be lost" in refused("predict", run, photos, "--out", name)
        assert Path(name).read_text() == text
    picture = photos / STRANGE[0] / "@0.png"
    before = picture.read_bytes()
    assert "it would be lost" in refused("predict", run, photos, "--out", picture)
    assert picture.read_bytes() == before
    Path("p.csv").touch()
    say("predict", run, photos, "--out", "p.csv")
    say("predict", run, photos, "--out", "p.csv", "--top", 2)
    say("predict", run, photos, "--out", "p.jsonl")
    say("predict", run, photos, "--out", "p.jsonl", "--top", 2)
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert list(first) == ["path", "class", "probability", "class_2", "probability_2"]
    assert "is read here and would be lost" in refused("predict", run, "p.csv", "--out", "./p.csv")
    Path("link.csv").symlink_to("p.csv")
    assert "is read here" in refused("predict", run, "p.csv", "--out", "link.csv")
    for name in ("labels.csv", "corrected.csv", "model/p.csv", "run.toml"):
        assert "is a file of the run itself" in refused("predict", run, photos, "--out", run / name)
    os.mkfifo("pipe.csv")
    assert "is no file" in refused("predict", run, photos, "--out", "pipe.csv")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["noise", "digits", "--rate", "0.2", "--out"], "mine.json"),
        (["report", "RUN", "--out"], "mine.html"),
        (["review", "RUN", "--static"], "mine.html"),
    ],
)
def test_what_is_written_replaces_its_own_kind_alone(made: Path, arguments: list[str], name: str) -> None:
    typed = [made / "run" if word == "RUN" else word for word in arguments]
    Path(name).write_text("<!doctype html>mine {}")
    assert "it would be lost" in refused(*typed, name)
    assert Path(name).read_text() == "<!doctype html>mine {}"
    Path(name).unlink()
    say(*typed, name)
    say(*typed, name)


def test_an_audit_does_not_replace_a_table_of_labels(made: Path) -> None:
    Path("data").mkdir()
    Path("data/labels.csv").write_text("path,label\na.png,x\n")
    assert "is not a table of an audit" in refused("audit", made / "run", "--out", "data")
    np.save("y.npy", np.array([0, 1, 0]))
    np.save("p.npy", np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]))
    assert "is not a table of an audit" in refused("audit", "--labels", "y.npy", "--probs", "p.npy", "--out", "data")
    assert os.listdir("data") == ["labels.csv"] and "a.png" in Path("data/labels.csv").read_text()
    for _ in range(2):
        say("audit", made / "run", "--out", "other")


def test_a_device_is_never_replaced() -> None:
    with pytest.raises(UserError, match="is no file"):
        check_writable(Path("/dev/null"))


# --- labels.csv of a finished run ---


@pytest.mark.parametrize(
    "change", ["missing", "", "id,given\n1,a\n", "id,path,given,suggested,p_clean\n1,,a,a,x\n", '"']
)
def test_a_finished_run_without_readable_labels_is_told_in_a_warning(made: Path, change: str) -> None:
    path = made / "run" / "labels.csv"
    before = path.read_bytes()
    try:
        path.unlink() if change == "missing" else path.write_text(change)
        for arguments in (["resume", made / "run"], ["train", made / "photos", *TINY, "--out", made / "run"]):
            told = say(*arguments)
            assert "labels.csv" in told.stderr and "scanmix audit" in told.stderr and "Run folder" in told.stdout
        say("audit", made / "run")
        assert path.read_bytes() == before
    finally:
        path.write_bytes(before)


# --- damaged models ---


def test_probabilities_that_are_no_numbers_are_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Model.predict_proba

    def broken(self: Model, inputs: Any) -> np.ndarray:
        return np.full_like(whole(self, inputs), np.nan)

    monkeypatch.setattr(Model, "predict_proba", broken)
    assert "is damaged: its probabilities for" in refused("predict", made / "run", made / "photos")
    assert not Path("predictions.csv").exists()
    assert "is damaged: its probabilities for 12 of 12" in refused("evaluate", made / "run", "--data", made / "photos")


# --- where tables look ---


def test_root_is_for_the_tables_of_predict_and_of_test(made: Path) -> None:
    Path("t.csv").write_bytes((made / "t.csv").read_bytes())
    assert "not one of 12 files" in refused("predict", made / "run", "t.csv")
    assert "12 of 12" in say("predict", made / "run", "t.csv", "--root", made / "photos").stdout
    assert "--root is what the paths of a table" in refused(
        "predict", made / "run", made / "photos", "--root", made, "--out", "q.csv"
    )
    names = [name.replace('"', "") for name in STRANGE]
    table = Path("t.csv").read_bytes().decode()
    for number, name in enumerate(names):
        table = table.replace(f'png","{number}"', f'png","{name}"')
    Path("test.csv").write_text(table, newline="")
    for data in (made / "photos", "t.csv"):
        test = "test.csv" if data != "t.csv" else "t.csv"
        told = say("train", data, "--test", test, "--root", made / "photos", *TINY, "--out", f"run-{Path(data).stem}")
        assert "12 test images" in told.stdout


# --- settings ---


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("network=3", "network = 3: a table of settings is expected"),
        ("network=[]", "network = []: a table of settings is expected"),
        ("settings=x", "'x': a table of settings is expected"),
        ("settings=3", "3: a table of settings is expected"),
        ("views=3", "views = 3: a table of settings is expected"),
        ("draw=x", "draw = 'x': a table of settings is expected"),
        ("monitor=true", "monitor = True: a table of settings is expected"),
        ("epochs=" + "9" * 5000, "a whole number at least 1 is expected"),
        ("epochs=" + "9" * 30, "a number of at most 9223372036854775807 is expected"),
        ("epochs=" + "[" * 5000, "a whole number at least 1 is expected"),
        ("epochs.a.b=1", "a whole number at least 1 is expected"),
        ("learning_rate=inf", "learning_rate = inf: a finite number is expected"),
        ("learning_rate=nan", "learning_rate = nan: a number above 0 is expected"),
        ("epochs=\x1b[31m", r"epochs = '\x1b[31m'"),
        (os.fsdecode(b"epochs=\xff"), "a text in UTF-8 is expected"),
        (".".join("a" * 3000) + "=1", "write key=value"),
    ],
)
def test_settings_of_wrong_types_are_one_sentence(setting: str, words: str) -> None:
    assert words in refused("train", "digits", "--method", "cross_entropy", "--set", setting)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 20_000, "[settings]\nepochs = " + "9" * 6_000, "network = 3", "[settings]\nlearning_rate = inf",
     "[settings]\nepochs = " + "[" * 40 + "]" * 40, ".".join("a" * 3000) + " = 1"],
)  # fmt: skip
def test_recipes_of_anything_are_one_sentence(text: str) -> None:
    Path("r.toml").write_text(text)
    refused("train", "digits", "--method", "cross_entropy", "--recipe", "r.toml")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_in_the_place_of_files_are_refused_at_once(made: Path, make: Callable[[str], None]) -> None:
    for name in ("r.toml", "n.json", "n.npy", "v.npy", "y.csv", "t.parquet"):
        make(name)
    np.save("good.npy", np.zeros((3, 2)))
    for arguments in (
        ["train", "digits", "--recipe", "r.toml"],
        ["train", "digits", "--noise", "file:n.json"],
        ["train", "digits", "--noise", "file:n.npy"],
        ["train", "good.npy", "--labels", "y.csv"],
        ["train", "good.npy", "--labels", "n.npy"],
        ["audit", "--labels", "v.npy", "--probs", "good.npy"],
    ):
        refused(*arguments)


def test_numbers_beyond_any_are_refused_by_the_command_line() -> None:
    for option in (["--threads", 10**9], ["--devices", 10**9], ["--seed", 10**30]):
        refused("train", "digits", "--method", "cross_entropy", *option)


# --- the first instants ---


def test_ctrl_c_before_there_is_a_command_ends_in_one_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stop(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    def stop(**_: Any) -> None:
        raise KeyboardInterrupt

    for module in (Stop("scanmix.cli"), ModuleType("scanmix.cli")):
        module.__dict__.setdefault("app", stop) if type(module) is ModuleType else None
        monkeypatch.setitem(sys.modules, "scanmix.cli", module)
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        assert ended.value.code == 130 and capsys.readouterr().err == "\nstopped\n"


def test_the_installed_command_starts_there() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"scanmix": "scanmix.__main__:main"}


def test_a_strict_terminal_and_a_mistyped_word_that_is_no_utf8() -> None:
    environment = {
        **os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": str(Path(scanmix.__file__).parents[1]),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "scanmix", b"tr\xff"], env=environment, capture_output=True)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"No such command" in done.stderr
