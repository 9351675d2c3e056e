"""What finished runs say about themselves: accuracies, seconds, noise, and labels that look wrong."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scanmix.cli.shell import percent, print_table

if TYPE_CHECKING:
    from scanmix.runs import Run


def show_results(title: str, runs: Sequence[Run]) -> None:
    """Print a table of accuracies, and the noise rates: known ones, and each estimate."""
    rows = [
        [
            run.settings.method + (" (oracle recipe)" if run.settings.oracle else ""),
            percent(run.best_accuracy),
            percent(run.last_accuracy),
            percent(run.last10_accuracy),
            f"{seconds(run):.0f}",
        ]
        for run in runs
    ]
    print_table(title, ["method", "best", "last", "mean of last 10", "seconds"], rows)
    if any(line.get("accuracy_after_matching") for run in runs for line in run.metrics):
        typer.echo("scan: measured after the best matching of clusters with classes, which no other method is given.")
    for run in [run for run in runs if run.noise.estimated is not None] or runs[:1]:
        known = [f"{what} {percent(share)}" for what, share in run.noise._asdict().items() if share is not None]
        if known:
            typer.echo(f"Wrong labels ({run.settings.method}): {', '.join(known)}.")


def seconds(run: Run) -> float:
    """Return what a run took: start, epochs and evaluation, all parts of it."""
    wanted = ("seconds/start", "seconds/epoch", "seconds/evaluate")
    return sum(float(line.get(key, 0.0)) for line in run.metrics for key in wanted)


def read_labels(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's `labels.csv`, the most doubtful first."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def show_labels(folder: Path, truth: Mapping[str, str] | None = None, count: int = 5) -> None:
    """Print how many labels look wrong (p_clean below a half, not decided by a person) and the most doubtful few.

    Where the truth (id -> class) is known, also how many of them are wrong, and of how many wrong ones.
    """
    rows = read_labels(folder)
    decided = sum(bool(row.get("decided")) for row in rows)
    doubtful = [row for row in rows if float(row["p_clean"]) < 0.5 and not row.get("decided")]
    known = ""
    if truth is not None and doubtful:
        found = sum(truth[row["id"]] != row["given"] for row in doubtful)
        wrong = sum(truth[row["id"]] != row["given"] for row in rows)
        known = f"; {found} of these are ({percent(found / len(doubtful))}), of {wrong} wrong ones in all"
    typer.echo(f"{len(doubtful)} of {len(rows)} labels look wrong{known}.")
    if decided:
        typer.echo(f"{decided} labels were decided by a person before; they are not counted and come last.")
    if not doubtful:
        return
    columns = ["image", "given", "suggested", "p(right)"] + (["truth"] if truth is not None else [])
    shown = [
        [row["path"] or row["id"], row["given"], row["suggested"], row["p_clean"]]
        + ([truth[row["id"]]] if truth is not None else [])
        for row in doubtful[:count]
    ]
    print_table(f"The most doubtful in {folder / 'labels.csv'}", columns, shown, text_columns=len(columns))
