"""Everything that a report shows about a run. What is unknown is None, with a sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanmix.audit import Audit, Evidence, score_labels
from scanmix.config import Table, UserError, read_toml
from scanmix.data.examples import Examples
from scanmix.evaluate.accuracy import evaluate_run
from scanmix.model.dynamics import Snapshot, load_dynamics
from scanmix.progress import Bar
from scanmix.training import Run, open_run

STEPS = 3
"""Steps that `collect_findings` reports to its progress bar."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFindings:
    """What is known about one run. Legend: N examples."""

    run: Run
    folder: Path
    versions: Table
    toml: str
    """The text of run.toml."""
    snapshots: Sequence[Snapshot]
    labels: Evidence | Examples | None
    """The source of given and true labels: stored evidence, or training data if it can be loaded again."""
    audit: Audit | None
    no_audit: str
    """Why there is no audit; empty if there is one."""
    images: Sequence[str] | Tensor | None
    """N image files, or pixels (N, channels, H, W) uint8; None without an audit, and for vectors."""
    no_images: str
    """Why there are no images although the run is one on images; else empty."""
    test: dict[str, Any] | None
    """Results of `evaluate_run` on the test data."""
    no_test: str
    """Why there are none; empty if there are."""
    rounds: Mapping[str, int] | None = None
    """Counts of `earlier_rounds` about labels decided before the run; None if there are no such labels."""
    no_rounds: str = ""
    """Why the counts are unknown although there are such labels; else empty."""

    @property
    def given(self) -> Tensor:
        """Given labels; empty if they are unknown. Shape: (N,) int64."""
        return torch.empty(0, dtype=torch.int64) if self.labels is None else self.labels.labels.cpu()

    @property
    def truth(self) -> Tensor | None:
        """True labels; None if they are unknown, `OPEN_SET` for an image of no class. Shape: (N,) int64."""
        true = None if self.labels is None else self.labels.true_labels
        return None if true is None else true.cpu()

    @property
    def wrong(self) -> np.ndarray | None:
        """Which labels are wrong, in the order of the training data; None if the truth is unknown. Shape: (N,) bool."""
        return None if self.truth is None else (self.truth != self.given).numpy()


def collect_findings(folder: str | Path, bar: Bar) -> RunFindings:
    """Read a run, score its labels and measure it on its test data again.

    Args:
        folder: of the run.
        bar: a progress bar of `STEPS` steps.

    Raises:
        UserError: it is no run folder, or a file in it is damaged.
    """
    run, folder = open_run(folder), Path(folder)
    text = (folder / "run.toml").read_text(encoding="utf-8")
    snapshots = load_dynamics(folder, len(run.metrics))
    bar.advance(note="labels")
    labels: Evidence | Examples | None = None
    audit, no_audit, images, no_images = None, "", None, ""
    try:
        if not run.finished:
            labels = run.training_data()  # losses of right and wrong labels are shown before there is an audit
        labels = evidence = run.evidence()
        audit = score_labels(evidence)
        images, no_images = _images(run, evidence)
    except UserError as error:
        no_audit = str(error)
    bar.advance(note="test images")
    test, no_test = None, ""
    try:
        test = evaluate_run(folder)
    except UserError as error:
        no_test = str(error)
    bar.advance()
    rounds, no_rounds = (None, "") if audit is None or "decided" not in audit else _rounds(folder, audit)
    return RunFindings(
        run=run, folder=folder, versions=read_toml(folder / "run.toml").get("versions", {}), toml=text,
        snapshots=snapshots, labels=labels, audit=audit, no_audit=no_audit, images=images,
        no_images=no_images, test=test, no_test=no_test, rounds=rounds,
        no_rounds=no_rounds,
    )  # fmt: skip


def _rounds(folder: Path, audit: Audit) -> tuple[Mapping[str, int] | None, str]:
    """Return how many earlier decisions the audit and later decisions confirm, or why that is unknown."""
    from scanmix.review.decisions import Decisions  # imports a web server
    from scanmix.review.rows import earlier_rounds

    try:
        return earlier_rounds(audit, Decisions(folder, audit, "")), ""
    except UserError as error:
        return None, str(error)


def _images(run: Run, evidence: Evidence) -> tuple[Sequence[str] | Tensor | None, str]:
    """Return the images, or why there are none; of vectors neither."""
    if run.model.kind == "vector":
        return None, ""
    try:
        return run.pictures(evidence), ""
    except UserError as error:
        return None, str(error)


def names_of(runs: Sequence[RunFindings]) -> list[str]:
    """Return a name for each run: its method if the methods differ, else its folder."""
    for names in (
        [found.run.settings.method for found in runs],
        [found.folder.resolve().name for found in runs],
        [str(found.folder) for found in runs],
    ):
        if len(set(names)) == len(names):
            return names
    return [f"{found.folder} ({place})" for place, found in enumerate(runs, 1)]
