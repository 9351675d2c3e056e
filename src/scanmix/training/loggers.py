"""Loggers: they send the metrics of a run to TensorBoard, MLflow, Weights & Biases, or an object of the caller.

Nothing of a run depends on a logger. One that fails is reported once and left out.
"""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pydantic.dataclasses

from scanmix.config import STRICT, UserError, flatten, in_short, install, unknown_name
from scanmix.files import read_json, write_json
from scanmix.training import EpochMetrics, Run


@runtime_checkable
class Logger(Protocol):
    """The methods that a logger needs: those of Lightning Fabric's `Logger` that are called here."""

    def log_hyperparams(self, params: dict[str, Any], /) -> None:
        """Take the settings, once in each part of a run."""

    def log_metrics(self, metrics: dict[str, float], /, step: int) -> None:
        """Take the metrics of an epoch; the first is step 1."""

    def finalize(self, status: str, /) -> None:
        """Close; `status` is "success" or "failed"."""


class TensorBoard:
    """Event files in the folder `tensorboard` of a run."""

    package = "tensorboard"
    id = "tensorboard"

    def __init__(self, run: Run, id: str | None) -> None:
        """Begin a new event file; TensorBoard shows all files of the folder as one curve."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(f"{run.folder}/{self.id}")

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Write the session record alone: without an experiment record, TensorBoard offers every metric beside it."""
        # revisit: hparams() and file_writer are internals of PyTorch's writer, and may change with its version.
        from torch.utils.tensorboard.summary import hparams

        records: Any = self.writer.file_writer
        records.add_summary(hparams(params, {})[1])

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Write a scalar each, and flush the file."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finalize(self, status: str) -> None:
        """Close the file."""
        self.writer.close()


class MLflow:
    """A run of the experiment `MLFLOW_EXPERIMENT_NAME` ("scanmix") at `MLFLOW_TRACKING_URI`.

    It uses the client, so that it leaves alone a run that the caller has active.
    """

    package = "mlflow"

    def __init__(self, run: Run, id: str | None) -> None:
        """Go on with the run `id`, or begin one."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read while it is imported
        from mlflow import MlflowClient

        self.client = MlflowClient()
        if id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "scanmix")
            found = self.client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self.client.create_experiment(name)
            self.id: str = self.client.create_run(experiment, run_name=_title(run)).info.run_id
        else:
            self.client.update_run(id, status="RUNNING")
            self.id = id

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Store them as the run's parameters."""
        from mlflow.entities import Param

        self.client.log_batch(self.id, params=[Param(name, str(value)) for name, value in params.items()])

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Store them in one request."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def finalize(self, status: str) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.id, "FINISHED" if status == "success" else "FAILED")


class WandB:
    """A run of the project `WANDB_PROJECT` ("scanmix"); `WANDB_MODE=offline` needs neither network nor login."""

    package = "wandb"

    def __init__(self, run: Run, id: str | None) -> None:
        """Go on with the run `id`, or begin one, beside any that the caller has active."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "scanmix"),
            name=os.environ.get("WANDB_NAME", _title(run)),
            dir=run.folder,
            id=id,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off"),  # progress bars should not be stored
        )
        self.id: str = self.run.id

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Store them as the run's config."""
        self.run.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Send them at once: by default they wait for those of the next epoch."""
        self.run.log(metrics, step=step, commit=True)

    def finalize(self, status: str) -> None:
        """Wait until all is sent, and say how the run ended."""
        self.run.finish(exit_code=0 if status == "success" else 1)


LOGGERS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def check_loggers(loggers: Sequence[str | Logger], folder: Path | None) -> None:
    """Refuse loggers that cannot work, before anything is trained.

    Args:
        loggers: names in `LOGGERS`, or objects with the methods of `Logger`.
        folder: of the run; None for a run in memory.

    Raises:
        UserError: an unknown name, an object that is no logger, a package that is missing, or no folder to write to.
    """
    if isinstance(loggers, str) or not isinstance(loggers, Sequence):
        raise UserError(f"loggers must be a list of names or loggers, not {in_short(loggers)}")
    for logger in loggers:
        if not isinstance(logger, str):
            if not isinstance(logger, Logger):
                raise UserError(f"{logger!r} is no logger: log_hyperparams, log_metrics and finalize are asked of one")
            continue
        if logger not in LOGGERS:
            raise unknown_name("logger", logger, LOGGERS)
        package = LOGGERS[logger].package
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # a mere folder has no origin: wandb leaves one of its name
            raise UserError(f"the logger {logger!r} needs {package}: {install(logger)}")
        if LOGGERS[logger] is TensorBoard and folder is None:
            raise UserError("the logger 'tensorboard' writes into the folder of the run; give one with out=")


@contextmanager
def logged(run: Run, loggers: Sequence[str | Logger]) -> Iterator[Callable[[EpochMetrics], None]]:
    """Send the settings of a run to loggers, then each line of its metrics that the block hands over.

    A named logger goes on where it was in an earlier part of the run, and is first sent the epochs it lacks. An object
    is sent only what is new.

    Raises:
        Whatever the block raises. An error of a logger becomes one warning.
    """
    feeds = [_Feed(run, logger) for logger in loggers]
    status = "failed"

    def log(line: EpochMetrics) -> None:
        for feed in feeds:
            feed.log(line)

    try:
        yield log
        status = "success"
    finally:
        for feed in feeds:
            feed.close(status)


def catch_up(run: Run, loggers: Sequence[str | Logger]) -> None:
    """Send the epochs of a finished run to those named loggers that lack any."""
    with logged(run, [logger for logger in loggers if isinstance(logger, str)]):
        pass


class _Feed:
    """One logger in one part of a run; silent once it has failed."""

    def __init__(self, run: Run, logger: str | Logger) -> None:
        self.run = run
        self.name = logger if isinstance(logger, str) else type(logger).__name__
        self.logger: Logger | None = None
        self.sent = 0
        self.id: str | None = None
        self.attempt(lambda: self.open(logger))

    def open(self, logger: str | Logger) -> None:
        if not isinstance(logger, str):
            self.logger = logger
            with suppress(NotImplementedError):  # Fabric's CSVLogger raises it
                logger.log_hyperparams(hyperparameters(self.run))
            return
        known, self.sent = _read_note(self.run, logger)
        if self.run.finished and self.sent == len(self.run.metrics):
            return
        named = LOGGERS[logger](self.run, known)
        self.logger, self.id = named, named.id
        named.log_hyperparams(hyperparameters(self.run))
        for line in self.run.metrics:
            self.log(line)

    def log(self, line: EpochMetrics) -> None:
        if (logger := self.logger) is not None and line["epoch"] > self.sent:
            self.attempt(lambda: self.send(logger, line))

    def send(self, logger: Logger, line: EpochMetrics) -> None:
        logger.log_metrics({name: float(value) for name, value in line.items() if name != "epoch"}, step=line["epoch"])
        self.sent = line["epoch"]
        if self.id is not None:
            _write_note(self.run, self.name, self.id, self.sent)

    def close(self, status: str) -> None:
        if (logger := self.logger) is not None:
            self.attempt(lambda: logger.finalize(status))

    def attempt(self, act: Callable[[], None]) -> None:
        """Call the logger; if that fails, warn and use it no more."""
        try:
            act()
        except Exception as error:  # other packages raise anything, and hours of training must not be lost
            self.logger = None
            why = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            kept = "run.metrics" if self.run.folder is None else self.run.folder / "metrics.jsonl"
            later = ", and the same command sends it later what it lacks" if self.name in LOGGERS else ""
            warnings.warn(
                f"the logger {self.name} failed ({why}) and is left out from here on; "
                f"the training does not stop, every number is in {kept}{later}",
                stacklevel=2,
            )


def hyperparameters(run: Run) -> dict[str, bool | int | float | str]:
    """Return all settings of a run under flat names (`settings.epochs`, `data.noise`), as values any logger takes."""
    data = {name: value for name, value in run.about.items() if name != "class_names"}
    flat = flatten({**run.settings.hashed_settings(), "data": data})
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in flat.items()}


def _title(run: Run) -> str:
    if run.folder is not None:
        return run.folder.absolute().name
    return f"{run.about['name']}-{run.settings.method}-{run.settings.seed}"


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class _Note:
    """What is stored of a logger: its own id of the run, and the last epoch it was sent."""

    id: str | None
    epoch: int


def _note_of(folder: Path, name: str) -> Path:
    return folder / "loggers" / f"{name}.json"


def _read_note(run: Run, name: str) -> tuple[str | None, int]:
    """Return the logger's own id of a run, and the last epoch it was sent."""
    if run.folder is None or not (path := _note_of(run.folder, name)).is_file():
        return None, 0
    note = read_json(path, _Note, "delete it, and the logger is sent the whole run again")
    return note.id, note.epoch


def _write_note(run: Run, name: str, id: str, epoch: int) -> None:
    if run.folder is None:
        return
    path = _note_of(run.folder, name)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"id": id, "epoch": epoch})
