"""A run: what was asked for, what happened in each epoch, and the model that came out; in memory or on disk.

Legend: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pydantic.dataclasses
import tomli_w

from scanmix.config import STRICT, Table, UserError, build, dump, file_path, flatten, read_toml, unknown_name
from scanmix.data.examples import Examples, changed_share
from scanmix.data.readers.origin import check_origin
from scanmix.files import checked, locked, reading, remove_leftovers, write_text, writing
from scanmix.files.lock import LOCK
from scanmix.methods import METHODS
from scanmix.model import Model, Pixels, load_model
from scanmix.runs.metrics import Line, append_line, read_lines, write_lines
from scanmix.runs.settings import RunSettings
from scanmix.runs.versions import versions
from scanmix.trajectory import Snapshot

if TYPE_CHECKING:
    from scanmix.audit import Audit

WRITTEN = {
    "": (
        r"run\.toml",
        r"metrics\.jsonl",
        r"labels\.(?:csv|parquet)",
        r"audit\.json",
        r"report\.html",
        r"corrected\.csv",
    ),
    "checkpoint": (r"(?:last|before)\.pt",),
    "model": (r"model\.(?:json|safetensors)",),
    "evidence": (r"evidence\.(?:json|safetensors)",),
    "trajectory": (r"\d{5}\.safetensors",),
    "loggers": (r"\w+\.json",),
}
"""What is written in a run folder, by sub-folder: patterns of names."""


class NoiseRates(NamedTuple):
    """Shares of wrong labels; None where nobody knows."""

    asked: float | None
    actual: float | None
    estimated: float | None


class Run:
    """One training, finished or not. `folder` is None when nothing was to be kept."""

    def __init__(
        self, settings: RunSettings, about: Mapping[str, Any], metrics: list[Line], *,
        folder: Path | None = None, model: Model | None = None,
    ) -> None:  # fmt: skip
        """Take over what is known; `about` is the `data` table of `run.toml`."""
        self.settings = settings
        self.about = dict(about)
        self.metrics = metrics
        self.folder = folder
        self.snapshots: list[Snapshot] = []
        """Of a run in memory; where there is a folder, `load_trajectory` reads them."""
        self.examples: Examples | None = None
        """What it was trained on, right after the training."""
        self._model = model

    def __repr__(self) -> str:
        """Say what it is and how well it went."""
        last = self.last_accuracy
        result = "" if last is None else f", accuracy {last:.1%}"
        return f"<Run {self.settings.method} on {self.about['name']}: {len(self.metrics)} epochs{result}>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; class i is `class_names[i]`."""
        return tuple(self.about["class_names"])

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        return self._model is not None or (self.folder is not None and (self.folder / "model" / "model.json").is_file())

    @property
    def model(self) -> Model:
        """The trained model, read from the folder when first asked for.

        Raises:
            UserError: the run is not finished.
        """
        if self._model is None:
            if self.folder is None or not self.finished:
                raise UserError(f"the run in {self.folder} is unfinished; `scanmix resume {self.folder}` goes on")
            self._model = load_model(self.folder)
            if self._model.class_names != self.class_names:
                raise UserError(
                    f"{self.folder / 'model'} is of other classes than {self.folder / 'run.toml'}; one of them is not "
                    "as it was written: bring it back"
                )
        return self._model

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy (0..1) after each epoch; empty without a test set."""
        return [line["accuracy"] for line in self.metrics if "accuracy" in line]

    @property
    def best_accuracy(self) -> float | None:
        """Best test accuracy of any epoch: chosen by the test set, so an upper bound, not a promise."""
        return max(self.accuracies, default=None)

    @property
    def last_accuracy(self) -> float | None:
        """Test accuracy after the last epoch."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def last10_accuracy(self) -> float | None:
        """Mean test accuracy of the last ten epochs."""
        return statistics.fmean(self.accuracies[-10:]) if self.accuracies else None

    @property
    def noise(self) -> NoiseRates:
        """Share of wrong labels: asked for, actual, and as the last epoch estimated it."""
        estimates = [line["estimated_noise"] for line in self.metrics if "estimated_noise" in line]
        return NoiseRates(
            self.about.get("asked_noise"), self.about.get("actual_noise"), estimates[-1] if estimates else None
        )

    def predict_proba(self, images: Pixels) -> np.ndarray:
        """Class probabilities of uint8 images (or Examples). Shape: (N, C, H, W) -> (N, C) float32."""
        return self.model.predict_proba(images)

    def predict(self, images: Pixels) -> np.ndarray:
        """Likeliest class of uint8 images (or Examples). Shape: (N, C, H, W) -> (N,) int64."""
        return self.model.predict(images)

    def audit(self, examples: Examples | None = None) -> Audit:
        """Weigh every label it was trained on: columns by name, most doubtful label first.

        A run folder keeps what that takes. Other runs look at what they were trained on again, as does one that is
        given the examples.

        Raises:
            UserError: the run is unfinished; what it kept is damaged; or it kept nothing, and its data cannot be
                loaded again (give the examples then).
        """
        from scanmix.audit import audit, evidence_of

        return audit(evidence_of(self, examples))

    def adopt(self, model: Model, examples: Examples) -> None:
        """Take the model of the training that has just ended, and what it was trained on."""
        self._model, self.examples = model, examples

    def record(self, line: Line) -> None:
        """Add an epoch to the metrics and, where there is a folder, before that to the disk.

        Raises:
            CannotWrite: the disk is full, or may not be written to.
        """
        if self.folder is not None:
            append_line(self.folder, line)
        self.metrics.append(line)

    def keep_epochs(self, epochs: int) -> None:
        """Forget every line after the first `epochs` epochs: the checkpoint does not know of them."""
        self.metrics = self.metrics[:epochs]
        if self.folder is not None:
            write_lines(self.folder, self.metrics)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class About:
    """The `data` table of `run.toml`: what a reader of the run may want to know of its data."""

    name: str
    num_examples: int
    class_names: list[str]
    noise: str | None = None
    asked_noise: float | None = None
    """Share of labels that the noise selected."""
    actual_noise: float | None = None
    """Share of labels known to be wrong."""


def describe(examples: Examples) -> Table:
    """Return the `data` table of `run.toml`."""
    actual = None
    if examples.true_labels is not None:
        actual = changed_share(examples.true_labels, examples.labels)
    asked = examples.noise.asked_rate if examples.noise else None
    about = About(
        name=examples.name,
        num_examples=len(examples),
        class_names=list(examples.class_names),
        noise=examples.noise.kind if examples.noise else None,
        asked_noise=asked,
        actual_noise=actual,
    )
    return dump(about)


def create_run(settings: RunSettings, examples: Examples, folder: Path | None) -> Run:
    """Return a run without epochs; write its `run.toml`.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    about = describe(examples)
    if folder is not None:
        if folder.exists() and not _is_free(folder):
            raise UserError(f"{folder} is there already and is no run; choose another folder with out=")
        table = {**dump(settings), "data": about, "versions": versions()}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "run.toml", tomli_w.dumps(table))
    return Run(settings, about, [], folder=folder)


def _is_free(folder: Path) -> bool:
    """Whether nothing is in a folder but what a process that is just beginning, or was killed then, has there."""
    ours = re.compile(rf"{re.escape(LOCK)}|run\.toml\.\d+(-[0-9a-f]{{8}})?\.part")
    return folder.is_dir() and all(ours.fullmatch(path.name) and path.is_file() for path in folder.iterdir())


@contextmanager
def writer(folder: Path | None, work: str) -> Iterator[None]:
    """Be the one who writes in a run folder while the block runs; it is made where it is not there yet.

    Part files that killed processes left there go; nothing else does.

    Raises:
        UserError: another process writes there; says which. CannotWrite: the folder cannot be made.
    """
    if folder is None or (folder.exists() and not folder.is_dir()):
        yield  # nothing is written, or `create_run` refuses it
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, work, busy="wait until it is done, stop it, or choose another folder"):
        for part, names in WRITTEN.items():
            remove_leftovers(folder / part, names)
        yield


def open_run(folder: str | Path) -> Run:
    """Open a run folder, finished or not.

    Raises:
        UserError: it is no run folder, or its files cannot be read.
    """
    folder = file_path("the run folder", folder)
    if not (folder / "run.toml").is_file():
        raise UserError(f"{folder} is no run folder: it has no run.toml")
    path = folder / "run.toml"
    with reading(path):
        table = read_toml(path)
        about = build(About, as_table(table.pop("data", {}), "data"), where=str(path), prefix="data.")
        checked(dict[str, str], json.dumps(table.pop("versions", {})))
        settings = build(RunSettings, table, where=str(path))
        if settings.method not in METHODS:
            raise unknown_name(f"method in {path}", settings.method, METHODS)
        for split, source in (settings.source or {}).items():
            check_origin(as_table(source, f"source.{split}"), f"source.{split}")
    return Run(settings, dump(about), read_lines(folder), folder=folder)


def as_table(value: object, name: str) -> Table:
    """Return what must be a table.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, dict):
        raise UserError(f"{name} = {value!r}: a table is expected")
    return value


def open_or_create(settings: RunSettings, examples: Examples, folder: Path | None) -> Run:
    """Return the run in `folder` to go on with, or a new one.

    Raises:
        UserError: the folder holds another run, or something else.
    """
    if folder is None or not (folder / "run.toml").is_file():
        return create_run(settings, examples, folder)
    run = open_run(folder)
    if run.settings.identity() != settings.identity():
        changed = "; ".join(_differences(run.settings.decisive(), settings.decisive()))
        raise UserError(f"{folder} holds another run ({changed}); choose another folder with out=")
    # Where it is computed may change.
    run.settings = dataclasses.replace(
        run.settings, device=settings.device, threads=settings.threads, processes=settings.processes
    )
    return run


def _differences(old: Table, new: Table) -> list[str]:
    """Name what differs between two tables: "settings.epochs was 4, is 6"."""
    found: list[str] = []
    before, after = flatten(old), flatten(new)
    for key in sorted(key for key in {*before, *after} if before.get(key) != after.get(key)):
        if "fingerprint" in key:
            found.append("the test images" if key.startswith("test") else "the training images or labels")
        else:
            found.append(f"{key} was {before.get(key)!r}, is {after.get(key)!r}")
    return found
