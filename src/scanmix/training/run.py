"""A run: what was asked for, what happened in each epoch, and the model that came out; in memory or on disk.

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
from torch import Tensor

from scanmix.audit import Audit, Evidence, collect, has_evidence, load_evidence, save_evidence, score_labels
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.files import locked
from scanmix.methods import METHODS
from scanmix.model import Model, Pixels, load_model
from scanmix.model.dynamics import Snapshot, load_dynamics
from scanmix.training.metrics import EpochMetrics, append_line, write_lines
from scanmix.training.settings import RunSettings


class NoiseRates(NamedTuple):
    """Shares of wrong labels; None where nobody knows."""

    asked: float | None
    actual: float | None
    estimated: float | None


class Run:
    """One training, finished or not. `folder` is None when nothing was to be kept."""

    def __init__(
        self, settings: RunSettings, about: Mapping[str, Any], metrics: list[EpochMetrics], *,
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
            self._check_classes(self._model.class_names, self.folder, "model")
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

        Raises:
            UserError: as `evidence`.
        """
        return score_labels(self.evidence(examples))

    def evidence(self, examples: Examples | None = None) -> Evidence:
        """Collect what the finished run of any method knows of its training labels.

        What the folder keeps is taken as it is, without the images. A run in memory, or of an older version, looks at
        its training data again.

        Args:
            examples: what it was trained on, to be looked at whatever is kept.

        Raises:
            UserError: the run is unfinished, what it kept is damaged, or it kept nothing and its training data cannot
                be loaded again as it was (give the examples then).
        """
        folder = self.folder
        if examples is None and folder is not None and self.finished and has_evidence(folder):
            found = load_evidence(folder)
            self._check_classes(found.class_names, folder, "evidence")
        else:
            model = self.model  # an unfinished run is told before its data is read
            examples = self.training_data() if examples is None else examples
            found = collect(model.look(examples), examples)
        snapshots = self.snapshots if folder is None else load_dynamics(folder, len(self.metrics))
        return dataclasses.replace(
            found,
            snapshots=snapshots,
            set_aside=self._set_aside(snapshots),
            self_supervised=METHODS[self.settings.method].self_supervised,
        )

    def training_data(self) -> Examples:
        """Return what the run was trained on, loaded again if need be.

        Raises:
            UserError: it came from memory, or is not what it was.
        """
        if self.examples is not None:
            return self.examples
        source = self.settings.source
        if source is None:
            raise UserError(
                f"the data of {self.folder} came from memory; call run.audit(examples) with the same examples"
            )
        examples = reload(source["train"])
        if examples.fingerprint() != self.settings.fingerprint:
            raise UserError(f"the data of {self.folder} is not what it was when the run began; bring it back")
        return examples

    def pictures(self, evidence: Evidence) -> Sequence[str] | Tensor:
        """Return where the picture of each example is to be seen: N files, or pixels where there never were files.

        Shape: pixels (N, channels, H, W) uint8.

        Raises:
            UserError: there never were files, and the training data cannot be loaded again.
        """
        return evidence.paths or self.training_data().images.cpu()

    def remember_decisions(self, examples: Examples) -> bool:
        """Keep with a finished run what a person has decided since; return whether there was anything new.

        For a run that was asked for again with the same labels, of which more have been looked at: nothing is to be
        trained, but the list of what to look at next is another.

        Raises:
            UserError: what the run kept is damaged or cannot be written.
        """
        folder = self.folder
        if folder is None or examples.decided is None or not has_evidence(folder):
            return False
        with locked(folder, "being audited"):
            found = load_evidence(folder)
            known = found.decided is not None and torch.equal(found.decided, examples.decided)
            if found.ids != examples.ids or known:
                return False
            save_evidence(folder, dataclasses.replace(found, decided=examples.decided, excluded=examples.excluded))
            self.audit().to_csv(folder / "labels.csv")
        return True

    def _check_classes(self, found: tuple[str, ...], folder: Path, part: str) -> None:
        """Refuse a part of the run that is of other classes than `run.toml`.

        Raises:
            UserError: one of the two is not as it was written.
        """
        if found != self.class_names:
            raise UserError(
                f"{folder / part} is of other classes than {folder / 'run.toml'}; one of them is not as it was "
                "written: bring it back"
            )

    def _set_aside(self, snapshots: Sequence[Snapshot]) -> Tensor | None:
        """Labels that every network was told not to believe in the last epoch; None where no method divides."""
        p_clean = snapshots[-1].p_clean if snapshots else None
        threshold = self.settings.build_method().clean_threshold
        return None if p_clean is None or threshold is None else (p_clean <= threshold).all(0)

    def adopt(self, model: Model, examples: Examples) -> None:
        """Take the model of the training that has just ended, and what it was trained on."""
        self._model, self.examples = model, examples

    def record(self, line: EpochMetrics) -> None:
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
