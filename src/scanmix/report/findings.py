"""All that a report can know of a run, gathered once; what cannot be known is None, with a sentence that says why."""

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
"""What `gather` reports to its bar."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFindings:
    """What is known of one run. Legend: N examples."""

    run: Run
    folder: Path
    versions: Table
    toml: str
    """The text of run.toml."""
    snapshots: Sequence[Snapshot]
    labels: Evidence | Examples | None
    """Who knows given and true labels: what was kept of a finished run, or the training data where it loads again."""
    audit: Audit | None
    no_audit: str
    """Why there is none; empty where there is."""
    pictures: Sequence[str] | Tensor | None
    """N files, or pixels (N, channels, H, W) uint8; None without an audit, or of vectors."""
    no_pictures: str
    """Why there are none, where there should be."""
    test: dict[str, Any] | None
    """What `evaluate` says of the test images."""
    no_test: str
    rounds: Mapping[str, int] | None = None
    """What `earlier_rounds` says of the labels that were decided before the run; None where none were."""
    no_rounds: str = ""
    """Why that is not known, where there were some."""

    @property
    def given(self) -> Tensor:
        """(N,) int64, the given labels; empty where they are not known."""
        return torch.empty(0, dtype=torch.int64) if self.labels is None else self.labels.labels.cpu()

    @property
    def truth(self) -> Tensor | None:
        """(N,) int64, the true labels, where they are known; `FOREIGN` for an image of no class."""
        true = None if self.labels is None else self.labels.true_labels
        return None if true is None else true.cpu()

    @property
    def wrong(self) -> np.ndarray | None:
        """(N,) bool in the order of the training data: labels known to be wrong; None where the truth is unknown."""
        return None if self.truth is None else (self.truth != self.given).numpy()


def collect_findings(folder: str | Path, bar: Bar) -> RunFindings:
    """Read a run, weigh its labels and measure it again.

    Raises:
        UserError: it is no run folder, or a file in it is damaged.
    """
    run, folder = open_run(folder), Path(folder)
    text = (folder / "run.toml").read_text(encoding="utf-8")
    snapshots = load_dynamics(folder, len(run.metrics))
    bar.advance(note="labels")
    labels: Evidence | Examples | None = None
    audit, no_audit, pictures, no_pictures = None, "", None, ""
    try:
        if not run.finished:
            labels = run.training_data()  # the right and the wrong have losses before there is an audit
        labels = evidence = run.evidence()
        audit = score_labels(evidence)
        pictures, no_pictures = _pictures(run, evidence)
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
        snapshots=snapshots, labels=labels, audit=audit, no_audit=no_audit, pictures=pictures,
        no_pictures=no_pictures, test=test, no_test=no_test, rounds=rounds,
        no_rounds=no_rounds,
    )  # fmt: skip


def _rounds(folder: Path, audit: Audit) -> tuple[Mapping[str, int] | None, str]:
    """How far decisions of earlier rounds hold, in the eyes of the audit and of whoever was asked again."""
    from scanmix.review.decisions import Decisions  # brings a server along
    from scanmix.review.rows import earlier_rounds

    try:
        return earlier_rounds(audit, Decisions(folder, audit, "")), ""
    except UserError as error:
        return None, str(error)


def _pictures(run: Run, evidence: Evidence) -> tuple[Sequence[str] | Tensor | None, str]:
    """Where the pictures are to be seen, or why there are none; nobody misses those of vectors."""
    if run.model.kind == "vector":
        return None, ""
    try:
        return run.pictures(evidence), ""
    except UserError as error:
        return None, str(error)


def names_of(runs: Sequence[RunFindings]) -> list[str]:
    """Return what to call each run: its method, where that tells them apart, else its folder."""
    for names in (
        [found.run.settings.method for found in runs],
        [found.folder.resolve().name for found in runs],
        [str(found.folder) for found in runs],
    ):
        if len(set(names)) == len(names):
            return names
    return [f"{found.folder} ({place})" for place, found in enumerate(runs, 1)]
