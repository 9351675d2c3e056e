"""Summaries of finished runs: accuracies, seconds, noise rates, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scanmix.cli.shell import print_table, say, show_warning
from scanmix.config import UserError, mean_of_ten, percent
from scanmix.data.names import from_here

if TYPE_CHECKING:
    from scanmix.audit import Audit
    from scanmix.training import Run


def show_results(title: str, runs: Sequence[Run]) -> None:
    """Print a table of accuracies and seconds, then the noise rates: known ones and each estimate."""
    rows = [
        [
            run.settings.method + (" (oracle recipe)" if run.settings.oracle else ""),
            percent(run.best_accuracy),
            percent(run.last_accuracy),
            percent(run.last_balanced_accuracy),
            mean_of_ten(run.last10_accuracy, len(run.accuracies)),
            f"{run.seconds:.0f}",
        ]
        for run in runs
    ]
    columns = ["method", "best", "last", "balanced", "mean of last 10", "seconds"]
    print_table(title, columns, rows)
    for run in runs:
        if missing := int(run.metrics[-1].get("classes_never_predicted", 0) if run.metrics else 0):
            words = "1 class is" if missing == 1 else f"{missing} classes are"
            show_warning(
                f"{run.settings.method}: {words} never predicted; `scanmix evaluate` with the run's folder says which"
            )
    if any(line.get("accuracy_after_matching") for run in runs for line in run.metrics):
        say("scan: measured after the best matching of clusters with classes, which no other method is given.")
    for run in [run for run in runs if run.noise.estimated is not None] or runs[:1]:
        known = [f"{what} {percent(share)}" for what, share in run.noise._asdict().items() if share is not None]
        if known:
            say(f"Wrong labels ({run.settings.method}): {', '.join(known)}.")


class Label(NamedTuple):
    """A row of `labels.csv`."""

    id: str
    path: str
    given: str
    suggested: str
    p_clean: str
    doubtful: bool
    """Whether it looks wrong: p_clean is below a half, and no person has decided."""
    decided: str
    """What a person had decided before the training; empty if nobody had."""


def labels_of(audit: Audit) -> list[Label]:
    """Return the rows of an audit as `labels.csv` has them, the most doubtful first."""
    p_clean = [f"{value:.4f}" for value in audit["p_clean"]]
    decided = audit["decided"].tolist() if "decided" in audit else [""] * len(p_clean)
    columns = [audit[name].tolist() for name in ("id", "path", "given", "suggested")]
    return [Label(*row) for row in zip(*columns, p_clean, audit.looks_wrong.tolist(), decided, strict=True)]


def read_labels(folder: Path) -> list[Label]:
    """Return the rows of a run's `labels.csv`, the most doubtful first.

    Raises:
        UserError: it is missing or damaged, or a p_clean in it is not a number.
    """
    from scanmix.files.tables import read_records

    path, found = folder / "labels.csv", []
    for number, row in enumerate(read_records(path, ("id", "path", "given", "suggested", "p_clean")), start=1):
        try:
            p_clean = float(row["p_clean"])
        except ValueError:
            raise UserError(
                f"row {number} of {path} has the p_clean {row['p_clean']!r}, which is not a number"
            ) from None
        decided = row.get("decided") or ""
        doubtful = p_clean < 0.5 and row["suggested"] != row["given"] and not decided
        found.append(Label(row["id"], row["path"], row["given"], row["suggested"], row["p_clean"], doubtful, decided))
    return found


def show_labels(
    folder: Path, audit: Audit | None = None, truth: Mapping[str, str] | None = None, count: int = 5
) -> None:
    """Print how many labels look wrong (`Audit.looks_wrong`) and the most doubtful few.

    Args:
        folder: of the run.
        audit: what its `labels.csv` was written from, where that was in this process; else the file is read.
        truth: id -> class, if it is known; then the numbers of wrong labels, and of those found, are printed too.
        count: how many rows to print.
    """
    try:
        rows = read_labels(folder) if audit is None else labels_of(audit)
    except UserError as error:  # only a warning: the run itself is complete
        show_warning(f"{error}; `scanmix audit {folder}` lists the labels anew")
        return
    doubtful, known = [row for row in rows if row.doubtful], ""
    if truth is not None and doubtful:
        found = sum(truth.get(row.id) != row.given for row in doubtful)
        wrong = sum(truth.get(row.id) != row.given for row in rows)
        known = f"; {found} of these are ({percent(found / len(doubtful))}), of {wrong} wrong ones in all"
    say(f"{len(doubtful)} of {len(rows)} labels look wrong{known}.")
    decided = sum(bool(row.decided) for row in rows)
    if decided:
        say(f"{decided} labels were decided by a person before; they are not counted and come last.")
    if not doubtful:
        return
    columns = ["image", "given", "suggested", "p(right)"] + (["truth"] if truth is not None else [])
    shown = [
        [from_here(row.path or row.id), row.given, row.suggested]
        + ["< 0.0001" if row.p_clean == "0.0000" else row.p_clean]
        + ([truth.get(row.id, "")] if truth is not None else [])
        for row in doubtful[:count]
    ]
    print_table(f"The most doubtful in {folder / 'labels.csv'}", columns, shown, text_columns=len(columns))
