"""The line that a report prints makes the same run again; differences are those that were made."""

import dataclasses
import os
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scanmix.cli import app
from scanmix.report.command import changed_settings, difference, train_command
from scanmix.training import Run, open_run, resolve

QUICK = ["--method", "cross_entropy", "--set", "epochs=1", "--set", "network.widths=[8,16]"]
FEW = ["--per-class", "8", "--limit-test", "20"]
LINES = [
    ["digits", *FEW, "--noise", "symmetric:0.4", "--seed", "3", *QUICK],
    ["digits", *FEW, "--noise", "asymmetric:0.3", "--threads", "1", *QUICK, "--set", "lr_drop=50%"],
    ["digits", *FEW, "--size", "12", *QUICK, "--set", "views.cutout=2"],
    ["digits", *FEW, "--noise", "symmetric-exclusive:0.4", "--recipe", "mine.toml", "--set", "epochs=1"],
]


def train(arguments: list[str], out: Path) -> Run:
    done = CliRunner().invoke(app, ["train", *arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return open_run(out)


@pytest.mark.parametrize("line", LINES)
def test_the_line_makes_the_same_run_again(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('method = "cross_entropy"\n[settings]\nlearning_rate = 0.01\n[network]\nblocks=[1]\n'
                                 'widths = [8]\n')  # fmt: skip
    first = train(line, tmp_path / "first")
    command = train_command(first)
    assert command is not None
    words = shlex.split(command)
    assert words[:2] == ["scanmix", "train"]
    second = train(words[2:], tmp_path / "second")
    assert second.settings.config_hash() == first.settings.config_hash()
    assert dataclasses.replace(second.settings, threads=None) == dataclasses.replace(first.settings, threads=None)


def test_a_recipe_that_is_gone_is_spelled_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('method = "cross_entropy"\n[settings]\nlearning_rate = 0.01\n')
    first = train(
        ["digits", *FEW, "--recipe", "mine.toml", *QUICK, "--set", "network.blocks=[1,1]"], tmp_path / "first"
    )
    Path("mine.toml").unlink()
    command = train_command(first)
    assert command is not None and "mine.toml" not in command
    second = train(shlex.split(command)[2:], tmp_path / "second")
    assert second.settings.config_hash() == first.settings.config_hash()


def test_test_images_of_their_own_are_named(tmp_path: Path) -> None:
    source = {
        "train": {"load": {"source": "/data/a b"}, "split": "train"},
        "test": {"load": {"source": "/data/held out"}, "split": "train", "steps": [{"match": {}}]},
    }
    settings = dataclasses.replace(resolve("cross_entropy", "a b"), source=source)
    command = train_command(Run(settings, {"name": "a b", "num_examples": 4, "class_names": ["x", "y"]}, []))
    assert command == "scanmix train '/data/a b' --test '/data/held out' --method cross_entropy --seed 0"


@pytest.mark.parametrize(
    ("source", "typed"),
    [("photos", "photos"), ("a b/c.csv", "'a b/c.csv'"), ("digits", "./digits"), ("../photos", "{up}/photos")],
)
def test_files_of_the_current_folder_are_named_as_they_are_typed_there(
    source: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    load = {"source": os.path.normpath(tmp_path / "here" / source), "root": str(tmp_path / "here" / "images")}
    settings = dataclasses.replace(resolve("cross_entropy", "x"), source={"train": {"load": load, "split": "train"}})
    command = train_command(Run(settings, {"name": "x", "num_examples": 4, "class_names": ["x", "y"]}, []))
    typed = typed.format(up=tmp_path)
    assert command == f"scanmix train {typed} --root images --method cross_entropy --seed 0"


@pytest.mark.parametrize(
    "train_source",
    [
        {"load": {"source": "digits", "flip": True}, "split": "train"},
        {"load": {"source": "digits"}, "split": "test"},
        {"load": {"source": "digits", "per_class": 3, "seed": 5}, "split": "train"},
        {"load": {"source": "digits"}, "split": "train", "steps": [{"noise": {"kind": "symmetric", "seed": 9}}]},
        {"load": {"source": "digits"}, "split": "train", "steps": [{"without_true_labels": True}]},
    ],
)  # fmt: skip
def test_what_the_command_line_cannot_say_gives_none(train_source: dict[str, object]) -> None:
    settings = dataclasses.replace(resolve("cross_entropy", "digits"), source={"train": train_source})
    assert train_command(Run(settings, {"name": "digits"}, [])) is None
    in_memory = dataclasses.replace(settings, source=None)
    assert train_command(Run(in_memory, {"name": "digits"}, [])) is None


def test_changes_name_their_origin() -> None:
    settings = resolve("scanmix", "digits", overrides={"epochs": 7, "pretrain.epochs": 3, "views.cutout": 5})
    changes = {change.key: change for change in changed_settings(settings)}
    assert (changes["epochs"].before, changes["epochs"].after, changes["epochs"].origin) == (300, 7, "given")
    assert (changes["pretrain.epochs"].after, changes["pretrain.epochs"].origin) == (3, "given")
    assert changes["views.cutout"].origin == "given"
    assert {change.origin for change in changes.values()} == {"recipe", "given"}
    assert "momentum" not in changes
    published = str(Path(__file__).parents[1] / "published.toml")  # nothing but the defaults
    assert changed_settings(resolve("cross_entropy", "mine", published)) == []


def test_differences_of_two_methods_are_told_by_what_both_have() -> None:
    about = {"name": "digits", "num_examples": 10}
    first = Run(resolve("dividemix", "digits", seed=1), {**about, "noise": "symmetric"}, [])
    second = Run(resolve("cross_entropy", "digits", seed=2), about, [])
    found = difference(first, second)
    changes = {change.key: (change.before, change.after) for change in found.changes}
    assert changes["method"] == ("dividemix", "cross_entropy") and changes["seed"] == (1, 2)
    assert "data.noise" in found.only_first and "mixup_alpha" in found.only_first
    assert set(found.only_second) == set()
    assert difference(first, first) == ([], [], [])
