"""What loggers are told, in which epoch; that they change nothing, and that none can end a training."""

import csv
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from scanmix.cli import app
from scanmix.config import UserError, install
from scanmix.data.examples import Examples
from scanmix.data.readers import load
from scanmix.files import parse_json
from scanmix.training import Run, open_run
from scanmix.training.loggers import LOGGERS, Logger, check_loggers, hyperparameters
from scanmix.training.loop import resume, train

SMALL: dict[str, Any] = {
    "method": "cross_entropy", "epochs": 3, "network": {"widths": [4, 8], "blocks": [1, 1]}, "threads": 1,
    "progress": False,
}  # fmt: skip

THEIRS = pytest.mark.filterwarnings("ignore", "error:the logger")
"""Warnings inside of other packages are theirs; that one failed is ours."""


class Ear:
    """A logger that keeps what it is told, and may raise when it hears a step, the settings or the end."""

    def __init__(self, id: str = "", *, at: object = None, error: Any = None) -> None:
        self.id, self.at, self.error = id, at, error
        self.heard: list[tuple[object, Any]] = []

    def hear(self, what: object, content: Any) -> None:
        self.heard.append((what, content))
        if what == self.at:
            raise self.error

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.hear("settings", params)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.hear(step, metrics)

    def finalize(self, status: str) -> None:
        self.hear("end", status)

    @property
    def steps(self) -> list[object]:
        return [what for what, _ in self.heard if isinstance(what, int)]


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples | None]:
    return load("digits", per_class=6, limit_test=20)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([part.flatten() for part in run.model.predictor.state_dict().values()])


def go(digits: tuple[Examples, Examples | None], *given: str | Logger, **more: Any) -> Run:
    return train(digits[0], test=digits[1], loggers=given, **SMALL, **more)


def interrupted(digits: tuple[Examples, Examples | None], folder: Path, *given: str | Logger) -> Ear:
    """Stop in epoch 2, when its line is written and its checkpoint is not."""
    stop = Ear(at=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match="scanmix resume"):
        go(digits, *given, stop, out=folder)
    return stop


def test_a_logger_hears_the_settings_then_each_epoch_then_the_end(digits: tuple[Examples, Examples | None]) -> None:
    ear = Ear()
    run = go(digits, ear)
    assert [what for what, _ in ear.heard] == ["settings", 1, 2, 3, "end"]
    assert ear.heard[0][1] == hyperparameters(run) and ear.heard[-1][1] == "success"
    for line, (_, numbers) in zip(run.metrics, ear.heard[1:-1], strict=True):
        assert numbers == {name: value for name, value in line.items() if name != "epoch"}
        assert {"accuracy", "learn/loss", "seconds/epoch"} <= set(numbers)


def test_hyper_parameters_are_flat_and_plain(digits: tuple[Examples, Examples | None]) -> None:
    found = hyperparameters(go(digits))
    assert found["settings.epochs"] == 3 and found["network.widths"] == "[4, 8]" and found["data.num_examples"] == 60
    assert found["method"] == "cross_entropy" and found["seed"] == 0
    assert not {"device", "threads", "source", "data.class_names"} & set(found)
    assert {type(value) for value in found.values()} <= {bool, int, float, str}


def test_loggers_change_nothing(digits: tuple[Examples, Examples | None], tmp_path: Path) -> None:
    plain, heard = go(digits, out=tmp_path / "a"), go(digits, Ear(), out=tmp_path / "b")
    assert torch.equal(weights(plain), weights(heard))
    assert plain.settings.config_hash() == heard.settings.config_hash()
    assert (tmp_path / "a/run.toml").read_text() == (tmp_path / "b/run.toml").read_text()
    assert not (tmp_path / "b/loggers").exists()


def test_a_resumed_run_goes_on_at_its_epoch(digits: tuple[Examples, Examples | None], tmp_path: Path) -> None:
    first, second = interrupted(digits, tmp_path / "run"), Ear()
    run = resume(tmp_path / "run", progress=False, loggers=[second])
    assert first.steps == [1, 2] and first.heard[-1] == ("end", "failed")
    assert [what for what, _ in second.heard] == ["settings", 2, 3, "end"]
    assert torch.equal(weights(run), weights(go(digits)))


@pytest.mark.parametrize("at", ["settings", 2, "end"])
def test_a_logger_that_fails_is_told_once_and_left_out(
    digits: tuple[Examples, Examples | None], at: object, tmp_path: Path
) -> None:
    bad, good = Ear(at=at, error=OSError("no route\nto host")), Ear()
    with pytest.warns(UserWarning, match=r"logger Ear failed \(no route\) and .*, every number is in ") as told:
        run = go(digits, bad, good, out=tmp_path / "run")
    assert len(told) == 1 and str(told[0].message).endswith("metrics.jsonl")
    assert bad.heard[-1][0] == at and good.steps == [1, 2, 3] and good.heard[-1] == ("end", "success")
    assert run.finished and torch.equal(weights(run), weights(go(digits)))


def test_it_hears_that_a_training_failed(digits: tuple[Examples, Examples | None]) -> None:
    ear = Ear()
    with pytest.raises(UserError, match="stopped in epoch 2"):
        go(digits, ear, learning_rate=1e30)
    assert ear.heard[-1] == ("end", "failed") and ear.steps == [1]


class Named:
    """Stands in the place of MLflow, and keeps every logger that was opened."""

    package = "json"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **trouble: Any) -> None:
        self.opened: list[Ear] = []
        self.trouble = trouble
        monkeypatch.setitem(LOGGERS, "mlflow", self)

    def __call__(self, run: Run, id: str | None) -> Ear:
        self.opened.append(Ear(id or f"run-{len(self.opened) + 1}", **self.trouble))
        return self.opened[-1]

    @property
    def steps(self) -> list[list[object]]:
        return [ear.steps for ear in self.opened]


def test_a_named_logger_goes_on_in_its_own_run(
    digits: tuple[Examples, Examples | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Named(monkeypatch)
    interrupted(digits, tmp_path, "mlflow")
    resume(tmp_path, progress=False, loggers=["mlflow"])
    assert named.steps == [[1, 2], [3]]  # epoch 2 was made again, to the same numbers, and is not sent again
    assert [ear.id for ear in named.opened] == ["run-1", "run-1"]
    assert parse_json((tmp_path / "loggers/mlflow.json").read_text()) == {"id": "run-1", "epoch": 3}


def test_a_named_logger_is_sent_what_it_lacks(
    digits: tuple[Examples, Examples | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(digits, tmp_path)
    named = Named(monkeypatch, at=3, error=OSError("down"))
    with pytest.warns(UserWarning, match="the same command sends it later what it lacks"):
        resume(tmp_path, progress=False, loggers=["mlflow"])
    assert named.steps == [[1, 2, 3]]
    named.trouble = {}
    for _ in range(2):  # the second time there is nothing left to send
        run = go(digits, "mlflow", Ear(at="settings", error=AssertionError("nothing to hear")), out=tmp_path)
        assert run.finished and named.steps == [[1, 2, 3], [3]]
    resume(tmp_path, loggers=["mlflow"])
    assert named.steps == [[1, 2, 3], [3]]


def test_a_damaged_note_is_a_logger_that_fails(
    digits: tuple[Examples, Examples | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Named(monkeypatch)
    interrupted(digits, tmp_path, "mlflow")
    (tmp_path / "loggers/mlflow.json").write_text("{")
    for _ in range(2):  # the second time the run is finished
        with pytest.warns(UserWarning, match="logger mlflow failed"):
            assert resume(tmp_path, progress=False, loggers=["mlflow"]).finished
    assert named.steps == [[1, 2]]


def test_a_run_in_memory_has_named_loggers_too(
    digits: tuple[Examples, Examples | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Named(monkeypatch)
    go(digits, "mlflow")
    assert named.steps == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tensorbord", "unknown logger 'tensorbord'; did you mean 'tensorboard'"),
        (object(), "is no logger: log_hyperparams, log_metrics and finalize"),
        ("wandb", re.escape(f"'wandb' needs wandb: {install('wandb')}")),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    digits: tuple[Examples, Examples | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=message):
        go(digits, given, out=tmp_path / "run")
    with pytest.raises(UserError, match=message):
        resume(tmp_path / "run", loggers=[given])
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B leaves a folder `wandb` where it ran."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="needs wandb"):
        check_loggers(["wandb"], tmp_path)


def test_tensorboard_needs_a_folder(digits: tuple[Examples, Examples | None]) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(UserError, match="give one with out="):
        go(digits, "tensorboard")


def test_tensorboard_reads_one_curve_from_two_parts(digits: tuple[Examples, Examples | None], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    interrupted(digits, tmp_path, "tensorboard")
    run = resume(tmp_path, progress=False, loggers=["tensorboard"])
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {name for line in run.metrics for name in line} - {"epoch"}
    found = [(event.step, event.value) for event in events.Scalars("accuracy")]
    assert found == [(i + 1, pytest.approx(value)) for i, value in enumerate(run.accuracies)]
    data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = data.HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["settings.epochs"].number_value == 3
    assert settings["network.widths"].string_value == "[4, 8]"


@THEIRS
def test_mlflow_keeps_one_run_of_two_parts(
    digits: tuple[Examples, Examples | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    interrupted(digits, tmp_path / "first", "mlflow")
    client = mlflow.MlflowClient()
    experiments = [client.get_experiment_by_name("digits").experiment_id]
    assert [found.info.status for found in client.search_runs(experiments)] == ["FAILED"]
    run = resume(tmp_path / "first", progress=False, loggers=["mlflow"])
    (found,) = client.search_runs(experiments)
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params == {name: str(value) for name, value in hyperparameters(run).items()}
    history = client.get_metric_history(found.info.run_id, "accuracy")
    assert [(metric.step, metric.value) for metric in history] == list(enumerate(run.accuracies, 1))
    with mlflow.start_run(experiment_id=experiments[0]) as mine:  # the caller's, which stays what it is
        train(digits[0], loggers=["mlflow"], **SMALL)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert len(client.search_runs(experiments)) == 3 and not client.get_run(mine.info.run_id).data.params


@THEIRS
def test_wandb_works_without_network(
    digits: tuple[Examples, Examples | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    mine = wandb.init(project="mine", dir=tmp_path)
    interrupted(digits, tmp_path / "first", "wandb")
    resume(tmp_path / "first", progress=False, loggers=["wandb"])
    note = json.loads((tmp_path / "first/loggers/wandb.json").read_text())
    assert note["epoch"] == 3
    parts = [path for path in (tmp_path / "first/wandb").iterdir() if path.name.startswith("offline-run")]
    assert len(parts) == 2 and all((part / f"run-{note['id']}.wandb").stat().st_size for part in parts)
    mine.log({"still": 1})
    mine.finish()


@THEIRS
def test_a_logger_of_fabric_is_one(digits: tuple[Examples, Examples | None], tmp_path: Path) -> None:
    fabric = pytest.importorskip("lightning_fabric.loggers")
    logger = fabric.CSVLogger(tmp_path, name="logs", version=0)
    run = go(digits, logger, fabric.TensorBoardLogger(tmp_path, name="board"))
    with (tmp_path / "logs/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), float(row["accuracy"])) for row in rows] == list(enumerate(run.accuracies, 1))
    assert any((tmp_path / "board").rglob("events.out.*"))


def say(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_the_command_line_names_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Named(monkeypatch, at=2, error=OSError("down"))
    monkeypatch.chdir(tmp_path)
    line = ["train", "digits", "--per-class", 6, "--method", "cross_entropy", "--set", "epochs=2", "--threads", 1]
    line += ["--set", "network.widths=[4,8]", "--set", "network.blocks=[1,1]", "--out", "run"]
    assert "did you mean 'mlflow'" in say(*line, "--logger", "mlflo", code=2).output
    assert not os.listdir(tmp_path)
    shown = say(*line, "--logger", "mlflow").output
    assert shown.count("Warning: the logger mlflow failed (down) and is left out") == 1
    named.trouble = {}
    say("resume", "run", "--logger", "mlflow")
    assert named.steps == [[1, 2], [2]] and open_run("run").finished
