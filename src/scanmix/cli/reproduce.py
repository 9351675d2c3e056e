"""`scanmix reproduce`: a table of results from one command, which also goes on with a table that was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scanmix.cli.options import PrecisionName, Root
from scanmix.cli.shell import print_table, say
from scanmix.config import UserError, as_typed
from scanmix.progress import progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scanmix.reproduce import Cell, ResultTable
    from scanmix.reproduce.table_run import TableRun

FIGURES = ("figure3", "figure4", "elbo")


TableName = Annotated[
    str | None,
    typer.Argument(
        metavar="TABLE",
        help="table1 ... table6, zoo-small, cifar10-small, mini100-small, clothing-small, fashion-small, "
        "digits-small or audit-digits; one cell, as table1/cifar100/sym90/scanmix; or figure3, "
        "figure4 and elbo, with run folders.",
    ),
]
Runs = Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="Run folders of a figure.")]
Out = Annotated[Path, typer.Option(help="Folder of the tables, and of their runs; of a figure, its file.")]
PaperData = Annotated[str | None, typer.Option(help="Which data set of the paper's table: cifar10, cifar100.")]
Scale = Annotated[
    Literal["paper", "small", "cifar-small"],
    typer.Option(help="small: the same table on 5,000 Fashion-MNIST images. cifar-small: on 10,000 of CIFAR-10."),
]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at once, each on one thread.")]
Seeds = Annotated[int, typer.Option(min=1, help="Run every cell with so many seeds, from 0 on.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,...", help="Only these methods, noises and seeds: scanmix,symmetric:0.9,seed0."),
]
Oracle = Annotated[bool, typer.Option("--oracle", help="Take recipes chosen for one noise, where there are.")]
Explain = Annotated[bool, typer.Option("--explain", help="Show the settings of one cell, and run nothing.")]
ListMissing = Annotated[
    bool, typer.Option("--list-missing", help="Name the rows of the paper's tables without a method here; run nothing.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the runs, how far they are and how long they take; run none.")
]


def reproduce(
    table: TableName = None, runs: Runs = None, out: Out = Path("results"), data: PaperData = None, root: Root = None,
    scale: Scale = "paper", jobs: Jobs = 2, seeds: Seeds = 1, only: Only = None, oracle: Oracle = False,
    precision: PrecisionName = "32-true", explain: Explain = False, dry_run: DryRun = False,
    list_missing: ListMissing = False,
) -> None:  # fmt: skip
    """Train every method of a table with every noise, and write the table.

    The same line goes on with a table that was stopped; runs that are finished are not run again.
    """
    if list_missing:
        return _list_missing()
    if table is None:
        raise UserError("name a table, such as table1; scanmix reproduce --help lists them")
    if table in FIGURES:
        return _figure(table, runs or [], out)
    if runs:
        raise UserError(f"{table} takes no run folders; figures do: scanmix reproduce figure3 RUN RUN")
    if table == "audit-digits":
        _audit(out, seeds)
        return
    from scanmix.reproduce import chosen_cells, find_cell, find_table, run_table
    from scanmix.reproduce.table_run import TableRun

    names = [name.strip() for text in only or () for name in text.split(",") if name.strip()]
    if "/" in table:
        if data is not None or scale != "paper" or names:
            raise UserError(f"{table} is one cell and names its data itself: leave out --data, --scale and --only")
        found, cell = find_cell(table, seeds, oracle=oracle)
        if explain:
            _explain(found, cell, table, root)
            return
        names = [cell.method, cell.noise]
    else:
        found = find_table(table, seeds, data, scale, oracle=oracle)
    if explain:
        raise UserError("--explain needs one cell, such as table1/cifar100/sym90/scanmix")
    work = TableRun(found, out, jobs, root, precision)
    if dry_run:
        _show_cells(work, names)
        return
    cells = chosen_cells(found, names)
    if waiting := work.waiting(cells):
        say(_in_all(work, len(cells), len(waiting), _measured(work, waiting)))

    def report(line: str) -> None:
        if not sys.stderr.isatty():  # a terminal shows the bar
            say(line)

    try:
        with progress(found.name, None) as bar:
            failures = run_table(found, out, jobs, only=names, root=root, precision=precision, bar=bar, say=report)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same line goes on") from None
    for name, reason in failures.items():
        say(f"failed: {name}: {reason}", err=True)
    say(f"Written: {out / found.name}.md and .csv; every run is in {out / 'store.jsonl'}")
    if failures:
        raise typer.Exit(1)


def _list_missing() -> None:
    """Print each row of the paper's tables that no method runs, with its tables."""
    from scanmix.reproduce.paper import missing_rows

    for row, tables in missing_rows().items():
        say(f"{row}: {', '.join(tables)}")


def _audit(out: Path, seeds: int) -> None:
    """Compare audits. The result is no table of accuracies, so it has a page of its own."""
    from scanmix.reproduce.audits import run_audits

    with progress("audit-digits", None) as bar:
        run_audits(out, seeds, bar=bar)
    say(f"Written: {out / 'audit.md'} and {out / 'audit.csv'}")


def _figure(name: str, runs: list[Path], out: Path) -> None:
    """Draw a figure of the paper, or of its theory, from runs, and print its caption."""
    from scanmix.files import write_text
    from scanmix.reproduce import figures

    if not 1 <= len(runs) <= 2:
        raise UserError(f"{name} is drawn from one or two run folders: scanmix reproduce {name} RUN RUN")
    draw = {"figure3": figures.figure3, "figure4": figures.figure4, "elbo": figures.elbo_figure}[name]
    drawn = draw(runs)
    path = out if out.suffix == ".svg" else out / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, drawn.svg)
    say(drawn.caption)
    say(f"Written: {path}")


def _explain(table: ResultTable, cell: Cell, path: str, root: Path | None) -> None:
    """Print every setting of a cell with its origin, the paper's figure, and the commands that run it."""
    from scanmix.reproduce import chosen_cells
    from scanmix.reproduce.explain import explained
    from scanmix.reproduce.paper import notes, paper_says
    from scanmix.reproduce.table_run import TableRun

    rows = [[found.key, str(found.value), found.origin] for found in explained(table, cell)]
    print_table(path, ["setting", "value", "from"], rows, text_columns=3)
    say(" ".join([f"The paper: {paper_says(table, cell) or 'no figure for this cell'}.", *notes(table)]))
    where = "" if root is None else f" --root {as_typed([str(root)])}"
    oracle = " --oracle" if table.oracle else ""
    say(f"Run it: scanmix reproduce {path}{where}{oracle}")
    trained = chosen_cells(table, [cell.method, cell.noise])[0]  # a self-supervised one runs in the first column alone
    say(f"The same as: scanmix {as_typed(TableRun(table, Path('results'), root=root).arguments(trained))}")


def _show_cells(work: TableRun, only: list[str]) -> None:
    """List the runs in their order, each with its state, its time on this machine and the command that trains it."""
    from scanmix.reproduce import chosen_cells

    cells = chosen_cells(work.table, only)
    waiting = work.waiting(cells)
    taken, missing = {}, ""
    try:
        taken = _measured(work, waiting)
    except UserError as error:  # the list is useful without the data, too
        missing = str(error)
    for cell in cells:
        run, there = work.opened(cell), (work.folder / cell.name / "run.toml").is_file()
        if cell not in waiting:
            state = "finished"
        elif run is None:
            state = "trained with other settings: delete it, or choose another --out" if there else "to be run"
        else:
            state = f"stopped after {len(run.metrics)} epochs"
        if cell in taken:
            low, high = taken[cell]
            state += f", {low / 60:.0f} to {high / 60:.0f} minutes on this machine"
        say(f"{cell.name}: {state}: scanmix {as_typed(work.arguments(cell))}")
    say(_in_all(work, len(cells), len(waiting), taken, missing))


def _measured(work: TableRun, waiting: Sequence[Cell]) -> dict[Cell, tuple[float, float]]:
    """Return the least and the most seconds of each run, measured on this machine."""
    from scanmix.reproduce.running import estimates

    with progress("measuring", None):
        return estimates(work, waiting)


def _in_all(
    work: TableRun, count: int, waiting: int, taken: Mapping[Cell, tuple[float, float]], missing: str = ""
) -> str:
    """Return how many runs are left, and how long they take."""
    low, high = (sum(pair[side] for pair in taken.values()) / 3600 / work.jobs for side in (0, 1))
    time = f"{low:.1f} to {high:.1f} hours, {work.jobs} at once, measured here."
    return f"{waiting} of {count} are to be run: {f'not measured: {missing}' if missing else time}"
