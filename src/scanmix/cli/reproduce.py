"""`scanmix reproduce`: a whole table of results from one line, which also goes on with a table that was stopped."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanmix.progress import progress

if TYPE_CHECKING:
    from scanmix.experiments import ResultTable


def reproduce(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="fashion-small, digits-small, table6-small or audit-digits.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables, and of their runs.")] = Path("results"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each on one thread.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Run every cell with so many seeds, from 0 on.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="Only these methods, noises or both: scanmix,symmetric:0.9."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and how far they are; run none.")] = False,
) -> None:
    """Train every method of a table with every noise, and write the table.

    The same line goes on with a table that was stopped; runs that are finished are not run again.
    """
    if table == "audit-digits":
        _audit(out, seeds)
        return
    from scanmix.experiments import find_table, run_table

    found = find_table(table, seeds)
    names = [name.strip() for text in only or () for name in text.split(",") if name.strip()]
    if dry_run:
        _show_cells(found, out, jobs, names)
        return

    def say(line: str) -> None:
        if not sys.stderr.isatty():  # a terminal has the bar
            typer.echo(line)

    try:
        with progress(table, None) as bar:
            failures = run_table(found, out, jobs, only=names, bar=bar, say=say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same line goes on") from None
    for name, reason in failures.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    typer.echo(f"Written: {out / table}.md and {out / table}.csv")
    if failures:
        raise typer.Exit(1)


def _audit(out: Path, seeds: int) -> None:
    """Compare audits; not a table of accuracies, so it has a page of its own."""
    from scanmix.experiments.audits import run_audits

    with progress("audit-digits", None) as bar:
        run_audits(out, seeds, bar=bar)
    typer.echo(f"Written: {out / 'audit.md'} and {out / 'audit.csv'}")


def _show_cells(table: ResultTable, out: Path, jobs: int, only: list[str]) -> None:
    """List the runs in their order: how far each of them is, and the line that would train it."""
    from scanmix.experiments import chosen_cells
    from scanmix.experiments.running import Work

    work = Work(table, out, jobs)
    for cell in chosen_cells(table, only):
        run, there = work.opened(cell), (work.folder / cell.name / "run.toml").is_file()
        if run is None:
            state = "trained with other settings: delete it, or choose another --out" if there else "to be run"
        else:
            state = "finished" if run.finished else f"stopped after {len(run.metrics)} epochs"
        typer.echo(f"{cell.name}: {state}: scanmix {shlex.join(work.arguments(cell))}")
