"""A run: its settings, the metrics of each epoch, and the model that comes out; in memory or on disk.

Legend: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from scanmix.audit import Audit, Evidence, collect, has_evidence, load_evidence, save_evidence, score_labels
from scanmix.config import ALL_AS_GIVEN, UserError, percent
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.features import as_vectors
from scanmix.files import locked, parse_json, reading
from scanmix.files.tables import data_frame
from scanmix.methods import METHODS
from scanmix.model import Model, Pixels, load_model
from scanmix.model.dynamics import Snapshot, load_dynamics, save_snapshot
from scanmix.training.consensus import with_consensus
from scanmix.training.metrics import WHOLE, EpochMetrics, append_line, stage_seconds, write_lines
from scanmix.training.settings import RunSettings


class NoiseRates(NamedTuple):
    """Shares (0..1) of wrong labels: that the noise selected, known, and estimated; None where not known."""

    asked: float | None
    actual: float | None
    estimated: float | None


class Run:
    """One training, finished or not. `folder` is None for a run in memory alone."""

    def __init__(
        self, settings: RunSettings, about: Mapping[str, Any], metrics: list[EpochMetrics], *,
        folder: Path | None = None, model: Model | None = None,
    ) -> None:  # fmt: skip
        """Store what is known of a run; `about` is the `data` table of `run.toml`."""
        self.settings = settings
        self.about = dict(about)
        self.metrics = metrics
        self.folder = folder
        self.snapshots: list[Snapshot] = []
        """Training dynamics of a run in memory; if there is a folder, `load_dynamics` reads them."""
        self.examples: Examples | None = None
        """The training data, in the process that trained; it stays in memory as long as the run."""
        self.features: np.ndarray | None = None
        """(N, D) float16, in that process the features of a pretrained encoder of the training data, if it has one."""
        self.last_audit: Audit | None = None
        """What `labels.csv` and `audit.json` were written from in this process. Its memory grows with N x C."""
        self._model = model

    def __repr__(self) -> str:
        """Name method, data, number of epochs and last accuracy."""
        result = "" if self.last_accuracy is None else f", accuracy {self.last_accuracy:.1%}"
        return f"<Run {self.settings.method} on {self.about['name']}: {len(self.metrics)} epochs{result}>"

    def _repr_html_(self) -> str:
        """Show itself in a notebook, with the most doubtful labels after a training in the same process."""
        balanced = self.last_balanced_accuracy
        words = repr(self)[1:-1] + ("" if balanced is None else f", balanced {percent(balanced)}")
        about, examples = Markup("<p>{}, {:,.0f} seconds.</p>").format(words, self.seconds), self.examples
        if self.last_audit is None:
            return about
        in_memory = examples is not None and examples.paths is None and examples.kind == "image"
        return about + Markup(self.last_audit.to_html(examples.images if examples and in_memory else None))

    def to_pandas(self) -> Any:  # pandas ships no types
        """Return the metrics as a data frame, a row for each epoch.

        Raises:
            UserError: pandas is missing.
        """
        return data_frame(self.metrics)

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; class i is `class_names[i]`."""
        return tuple(self.about["class_names"])

    @property
    def finished(self) -> bool:
        """Whether the training is over and its model is there."""
        return self._model is not None or (self.folder is not None and (self.folder / "model" / "model.json").is_file())

    @property
    def model(self) -> Model:
        """The trained model, read from the folder at first use.

        Raises:
            UserError: the run is not finished.
        """
        if self._model is None:
            if self.folder is None or not self.finished:
                raise UserError(f"the run in {self.folder} is unfinished; `scanmix resume {self.folder}` goes on")
            self._model = load_model(self.folder)
            self._check_classes(self._model.class_names, self.folder, "model")
        return self._model

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy (0..1) after each epoch; empty without a test set."""
        return [line["accuracy"] for line in self.metrics if "accuracy" in line]

    @property
    def best_accuracy(self) -> float | None:
        """Best test accuracy (0..1) of any epoch. It is chosen by the test set, so it is an upper bound."""
        return max(self.accuracies, default=None)

    @property
    def last_accuracy(self) -> float | None:
        """Test accuracy (0..1) after the last epoch."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def last_balanced_accuracy(self) -> float | None:
        """Balanced accuracy on the test examples after the last epoch; None without, and in runs of 0.1.0."""
        found: float | None = self.metrics[-1].get("balanced_accuracy") if self.metrics else None
        return found

    @property
    def last10_accuracy(self) -> float | None:
        """Mean test accuracy (0..1) of the last ten epochs."""
        return statistics.fmean(self.accuracies[-10:]) if self.accuracies else None

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds of each stage, all epochs together, by the key in the metrics ("seconds/epoch" ...)."""
        return stage_seconds(self.metrics)

    @property
    def seconds(self) -> float:
        """Seconds of the whole run: start, epochs and evaluation."""
        stages = self.stage_seconds
        return sum(stages.get(key, 0.0) for key in WHOLE)

    @property
    def noise(self) -> NoiseRates:
        """Shares (0..1) of wrong labels: selected by the noise, known, and as the audit estimates them.

        Before there is an audit, and in runs of 0.1.0, the estimate is `method_estimate`.

        Raises:
            UserError: the file of the audit in the folder is damaged.
        """
        estimated = self.method_estimate if self.last_audit is None else self.last_audit.noise_rate.value
        path = None if self.folder is None else self.folder / "audit.json"
        if self.last_audit is None and path is not None and path.is_file():
            with reading(path, "audit the run again"):
                estimated = float(parse_json(path.read_text(encoding="utf-8"))["noise_rate"]["value"])
        return NoiseRates(self.about.get("asked_noise"), self.about.get("actual_noise"), estimated)

    @property
    def method_estimate(self) -> float | None:
        """Share (0..1) of labels that the method took for wrong in its last epoch; None where it divides none."""
        estimates = [line["estimated_noise"] for line in self.metrics if "estimated_noise" in line]
        return estimates[-1] if estimates else None

    def predict_proba(self, images: Pixels) -> np.ndarray:
        """Class probabilities of uint8 images (or Examples). Shape: (N, C, H, W) -> (N, C) float32."""
        return self.model.predict_proba(images)

    def predict(self, images: Pixels) -> np.ndarray:
        """Likeliest class of uint8 images (or Examples). Shape: (N, C, H, W) -> (N,) int64."""
        return self.model.predict(images)

    def audit(self, examples: Examples | None = None) -> Audit:
        """Score every label it was trained on: columns by name, most doubtful label first.

        Raises:
            UserError: as `evidence`.
        """
        return score_labels(self.evidence(examples))

    def evidence(self, examples: Examples | None = None) -> Evidence:
        """Collect what the finished run of any method knows of its training labels.

        Evidence in the folder is read; the images are not needed then. A run in memory, or of an older version,
        predicts its training data again.

        Args:
            examples: what it was trained on; they are predicted again even if there is evidence in the folder.

        Raises:
            UserError: the run is unfinished, its evidence is damaged, or it has none and its training data cannot be
                loaded again as it was (give the examples then).
        """
        folder = self.folder
        if examples is None and folder is not None and self.finished and has_evidence(folder):
            found = load_evidence(folder)
            self._check_classes(found.class_names, folder, "evidence")
        else:
            model = self.model  # first, so that an unfinished run is refused before its data is read
            examples = self.training_data() if examples is None else examples
            rows = self._features_of(examples, model)
            found = collect(model.outputs(examples if rows is None else as_vectors(rows)), examples, rows)
        snapshots = self.snapshots if folder is None else load_dynamics(folder, len(self.metrics))
        return dataclasses.replace(
            found,
            snapshots=snapshots,
            set_aside=self._set_aside(snapshots),
            self_supervised=METHODS[self.settings.method].self_supervised,
            learned_all=METHODS[self.settings.method].about.labels == ALL_AS_GIVEN,
        )

    def _features_of(self, examples: Examples, model: Model) -> np.ndarray | None:
        """Return pretrained features of the training data; None without an encoder. Shape: -> (N, D) float16."""
        if model.encoder is None or (self.features is not None and examples is self.examples):
            return self.features
        return model.encoder.rows(examples)

    def training_data(self) -> Examples:
        """Return the training data, loaded again if need be.

        Raises:
            UserError: it came from memory, or has changed since.
        """
        if self.examples is not None:
            return self.examples
        source = self.settings.source
        if source is None:
            raise UserError(
                f"the data of {self.folder} came from memory; call run.audit(examples) with the same examples"
            )
        examples = with_consensus(reload(source["train"]))
        if examples.fingerprint() != self.settings.fingerprint:
            raise UserError(f"the data of {self.folder} is not what it was when the run began; bring it back")
        return examples

    def pictures(self, evidence: Evidence) -> Sequence[str] | Tensor:
        """Return the files of the N images, or their pixels if they did not come from files.

        Shape: pixels (N, channels, H, W) uint8.

        Raises:
            UserError: there are no files, and the training data cannot be loaded again.
        """
        return evidence.paths or self.training_data().images.cpu()

    def store_decisions(self, examples: Examples) -> bool:
        """Store with a finished run what a person has decided since; return whether there was anything new.

        This is for a training that is repeated with the same labels, more of which have been reviewed. Nothing has to
        be trained then, but other labels are to be reviewed next.

        Raises:
            UserError: the evidence of the run is damaged. CannotWrite: it cannot be written.
        """
        folder = self.folder
        if folder is None or examples.decided is None or not has_evidence(folder):
            return False
        with locked(folder, "being audited"):
            found = load_evidence(folder)
            known = found.decided is not None and torch.equal(found.decided, examples.decided)
            if found.ids != examples.ids or known:
                return False
            decided, before, excluded = examples.decided, examples.before, examples.excluded
            save_evidence(folder, dataclasses.replace(found, decided=decided, before=before, excluded=excluded))
            self.write_labels(folder)
        return True

    def write_labels(self, folder: Path) -> None:
        """Write `labels.csv` and `audit.json` into the folder of the run, and keep what they were written from.

        Raises:
            UserError: what the run kept is damaged. CannotWrite: the file cannot be written.
        """
        self.last_audit = self.audit()
        self.last_audit.to_csv(folder / "labels.csv")
        self.last_audit.to_json(folder / "audit.json")

    def _check_classes(self, found: tuple[str, ...], folder: Path, part: str) -> None:
        """Refuse a part of the run whose classes are not those of `run.toml`.

        Raises:
            UserError: they differ, so one of the two has been changed.
        """
        if found != self.class_names:
            raise UserError(
                f"{folder / part} is of other classes than {folder / 'run.toml'}; one of them is not as it was "
                "written: bring it back"
            )

    def _set_aside(self, snapshots: Sequence[Snapshot]) -> Tensor | None:
        """Return the labels that no network took for clean in the last epoch; None if the method does not divide.

        Shape: -> (N,) bool.
        """
        p_clean = snapshots[-1].p_clean if snapshots else None
        threshold = self.settings.build_method().clean_threshold
        return None if p_clean is None or threshold is None else (p_clean <= threshold).all(0)

    def adopt(self, model: Model, examples: Examples, features: np.ndarray | None = None) -> None:
        """Store the model of the training that has just ended, its training data and their pretrained features.

        Shape: features (N, D) float16.
        """
        self._model, self.examples, self.features = model, examples, features

    def record(self, line: EpochMetrics) -> None:
        """Add an epoch to the metrics, and before that to the file if there is a folder.

        Raises:
            CannotWrite: the disk is full, or may not be written to.
        """
        if self.folder is not None:
            append_line(self.folder, line)
        self.metrics.append(line)

    def record_snapshot(self, snapshot: Snapshot) -> None:
        """Add a snapshot to the training dynamics: on the disk if there is a folder, else in memory.

        Raises:
            CannotWrite: the disk is full, or may not be written to.
        """
        if self.folder is None:
            self.snapshots.append(snapshot)
        else:
            save_snapshot(self.folder, snapshot)

    def truncate(self, epochs: int) -> None:
        """Drop the metrics after the first `epochs` epochs: the checkpoint does not have those epochs."""
        self.metrics = self.metrics[:epochs]
        if self.folder is not None:
            write_lines(self.folder, self.metrics)
