"""What the command line says to people: help, tables, and one sentence with exit code 2 for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import scanmix
from scanmix.cli import app
from scanmix.cli.shell import settings_from
from scanmix.cli.train import run_name
from scanmix.config import UserError, install
from scanmix.config.fields import dotted_keys
from scanmix.methods import METHODS


def say(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    """The one sentence a command ends with when it cannot do what was typed."""
    result = say(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_version_and_help_name_what_is_there() -> None:
    assert say("--version").stdout.startswith("scanmix ")
    text = say("--help").stdout
    for command in ("demo", "train", "resume", "evaluate", "predict", "methods", "noise"):
        assert f"  {command} " in text
        assert say(command, "--help").exit_code == 0


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["methods", "--help"], ["train", "--help"]])
def test_no_torch_until_it_is_needed(arguments: list[str]) -> None:
    code = (
        "import sys; from scanmix.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "sys.exit(' '.join({'torch', 'sklearn', 'numpy'} & sys.modules.keys()))"
    )
    source = Path(scanmix.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.strip() == "" and done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "digits", "--sed", "3"], "No such option: --sed"),
        (["train", "digist"], "Did you mean 'digits'?"),
        (["train", "digits", "--method", "scanmx"], "unknown method 'scanmx'; did you mean 'scanmix'?"),
        (["train", "digits", "--recipe", "digits/any/nope"], "unknown recipe 'digits/any/nope'"),
        (["train", "digits", "--recipe", "mine.toml"], "mine.toml: no such file"),
        (["train", "digits", "--set", "pretrain.epohcs=3"], "did you mean 'pretrain.epochs'?"),
        (["train", "digits", "--set", "epochs"], "write key=value"),
        (["train", "digits", "--set", "epochs=-1"], "epochs = -1: a whole number at least 1 is expected"),
        (["train", "digits", "--noise", "symmetric:1.5"], "needs a rate between 0 and 1"),
        (["train", "digits", "--noise", "symetric:0.5"], "is not one of: none, symmetric:RATE"),
        (["train", "digits", "--noise", "file:none.json"], "none.json: no such file"),
        (["train", "digits", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["train", "digits", "--per-class", "5000"], "per_class=5000 is too many"),
        (["train", "digits", "--size", "4"], "size must be at least 8"),
        (["train", "digits", "--seed", "-1"], "Invalid value for '--seed'"),
        (["train", "digits", "--test", "nowhere"], "no folder, table or known data set 'nowhere'"),
        (["train", "photos"], "no folder, table or known data set 'photos'"),
        (["resume", "nowhere"], "nowhere: no such folder"),
        (["resume", "."], ". is no run folder: it has neither run.toml nor a model"),
        (["evaluate", "."], ". is no run folder"),
        (["predict", ".", "."], ". is no run folder"),
        (["predict", "nowhere", "."], "nowhere: no such folder"),
        (["methods", "scan-mix"], "unknown method 'scan-mix'; did you mean 'scanmix'?"),
        (["noise", "digits", "--kind", "symetric"], "unknown noise 'symetric'; did you mean 'symmetric'?"),
        (["noise", "digits", "--rate", "80"], "--rate 80 is not a share"),
        (["noise", "digits", "--out", "no/where.json"], "no: no such folder"),
        (["noise", "digits", "--out", "."], ". is a folder"),
        (["demo", "--noise", "symmetric"], "needs a rate between 0 and 1"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_the_disk_alone(
    empty_folder: Path, arguments: list[str], sentence: str
) -> None:
    assert sentence in refused(*arguments)
    assert list(empty_folder.iterdir()) == []


def test_several_problems_are_told_at_once() -> None:
    result = say("train", "digits", "--set", "epochs=0", "--set", "no_such=1")
    assert result.exit_code == 2
    assert "epochs = 0" in result.stderr and "unknown key 'no_such'" in result.stderr


def test_a_folder_that_holds_something_else_is_refused(empty_folder: Path) -> None:
    (empty_folder / "mine").mkdir()
    (empty_folder / "mine" / "letter.txt").write_text("dear")
    line = refused_after_reading("train", "digits", "--out", "mine")
    assert "mine is there already and is no run" in line
    assert [path.name for path in empty_folder.rglob("*")] == ["mine", "letter.txt"]


def refused_after_reading(*arguments: str) -> str:
    result = say(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]


def test_a_network_that_cannot_be_built_is_refused_before_a_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    wanted = ["--set", "network.kind=timm", "--set", "network.name=resnet18", "--per-class", "4", "--out", "run"]
    assert f"needs timm: {install('timm')}" in refused_after_reading("train", "digits", *wanted)
    assert not Path("run").exists()


def test_settings_are_joined_and_a_later_one_wins() -> None:
    assert settings_from(["a.b=1", "a.c=x", "a.b=2"]) == {"a": {"b": 2, "c": "x"}}
    with pytest.raises(UserError):
        settings_from(["a.b"])


@pytest.mark.parametrize(
    ("noise", "name"),
    [
        ("none", "photos-scanmix-3"),
        ("symmetric:0.8", "photos-symmetric-0.8-scanmix-3"),
        ("file:/tmp/some where/draw 1.json", "photos-file-draw-1-scanmix-3"),
    ],
)
def test_run_names(noise: str, name: str) -> None:
    assert run_name("photos", noise, "scanmix", 3) == name
    assert run_name("../a b", "none", "scan", 0) == "a-b-scan-0"


def test_every_method_is_described() -> None:
    text = say("methods").stdout
    for name in METHODS:
        assert name in text


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_is_listed_with_its_default(name: str) -> None:
    text = say("methods", name).stdout
    keys = list(dotted_keys(METHODS[name]))
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    for key in leaves:
        value: object = METHODS[name]()
        for part in key.split("."):
            value = getattr(value, part, None)
        if value is None:
            continue  # of another kind of pre-training than the default
        row = next(line for line in text.splitlines() if f" {key} " in line)
        assert str(value) in row


def test_noise_is_saved_and_both_rates_are_told(empty_folder: Path) -> None:
    result = say("noise", "digits", "--rate", "0.5", "--seed", "1")
    assert result.exit_code == 0, result.output
    saved = json.loads((empty_folder / "noise.json").read_text())
    assert saved["asked_rate"] == 0.5
    assert f"asked 50.0 %, actual {saved['actual_rate']:.1%}".replace("%", " %").replace("  ", " ") in result.stdout
    assert "--noise file:noise.json" in result.stdout
    assert len(saved["noise_labels"]) == 1437


def test_noise_by_class_is_measured_on_the_true_classes(empty_folder: Path) -> None:
    from scanmix.data.readers import load

    train, _ = load("digits")
    result = say("noise", "digits", "--kind", "symmetric-exclusive", "--rate", "0.3")
    noisy = np.array(json.loads((empty_folder / "noise.json").read_text())["noise_labels"])
    true = train.labels.numpy()
    for label in range(10):
        share = (noisy[true == label] != label).mean()
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"│ {label} "))
        assert f" {100 * share:.1f} %" in row and f" {(true == label).sum()} " in row
