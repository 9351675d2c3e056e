"""Run the cells of a table, a few at a time, each as its own `scanmix train`, and write the table after each.

Everything about a cell is in its run folder, so a table that was stopped in any way goes on where it was. What has
finished is in the store as well, so that a table also goes on where its run folders are not.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scanmix.data.examples import Examples
from scanmix.data.readers import load
from scanmix.distributed.engine import Precision
from scanmix.distributed.process_group import Processes
from scanmix.doctor.measure import Cost, Estimate, estimate, measure
from scanmix.files import locked, writing
from scanmix.progress import Bar, Quiet
from scanmix.reproduce.explain import settings_of
from scanmix.reproduce.published_labels import write_labels
from scanmix.reproduce.results import read_result
from scanmix.reproduce.table_run import Overrides, TableRun
from scanmix.reproduce.tables import Cell, ResultTable, chosen_cells, images_of, pretrains
from scanmix.training.checkpoint import has_checkpoint

POLL_SECONDS = 0.2
CHILD = """
from scanmix.distributed.watchdog import end_with_parent
end_with_parent()
from scanmix.cli import app
app(prog_name="scanmix")
"""
"""Program of a process that trains one cell. It ends when this one does, also by kill -9, which a run survives."""


def run_table(
    table: ResultTable, out: Path, jobs: int = 2, overrides: Overrides | None = None, *,
    only: Sequence[str] = (), root: Path | None = None, precision: Precision = "32-true", bar: Bar | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:  # fmt: skip
    """Train the cells that are not finished, `jobs` at a time; write `out/<table>.csv` and `.md` after each.

    Args:
        table: what to run.
        out: the folder of the tables; runs go to `out/runs/<table>/<cell>`, and their output to `<cell>.log`.
        jobs: number of runs at once, each on one thread.
        overrides: settings laid on the recipes, by method.
        only: methods and noises to run, instead of all of them.
        root: folder of the data set.
        precision: "32-true", or "bf16-mixed": encoders compute in bfloat16.
        bar: shows how many cells are finished.
        say: called with a line for each cell that ends.

    Returns: the reason for each cell that failed, by name. The other cells run all the same.

    Raises:
        UserError: the data cannot be read, a setting or a name in `only` is wrong, or another process runs this table.
    """
    work = TableRun(table, out, jobs, root, precision, overrides or {})
    cells, bar = chosen_cells(table, only), bar or Quiet()
    for cell in cells:
        work.wanted(cell)  # raises if a setting is mistyped, before anything runs
    waiting = work.waiting(cells)
    if waiting:  # raises once if data is missing, and not in every cell
        load_data(work, waiting[0].noise)
    with writing(work.folder):
        work.folder.mkdir(parents=True, exist_ok=True)
    with locked(work.folder, "being reproduced", "table.lock"):
        write_labels(table, waiting, work.folder, root)
        return _run_cells(work, cells, waiting, bar, say)


def _run_cells(
    work: TableRun, cells: Sequence[Cell], waiting: list[Cell], bar: Bar, say: Callable[[str], None]
) -> dict[str, str]:
    """Train the waiting cells; return the reasons of those that failed."""
    work.earlier = _seconds_before(work.folder / "seconds")
    work.write()
    failures: dict[str, str] = {}
    running: dict[Cell, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while len(running) < work.jobs and (ready := next_cell(work, waiting, running)):
                waiting.remove(ready)
                running[ready] = start_cell(work, ready)
            bar.set(len(cells) - len(waiting) - len(running), len(cells), ", ".join(cell.name for cell in running))
            for cell in [cell for cell, child in running.items() if child.poll() is not None]:
                reason = _ended(work, cell, end_child(running.pop(cell)), say)
                failures |= {cell.name: reason} if reason else {}
            time.sleep(POLL_SECONDS)
        bar.set(len(cells), len(cells))
    finally:
        for child in running.values():
            child.kill()
            end_child(child)
        work.write()
    return failures


def estimates(work: TableRun, cells: Sequence[Cell]) -> dict[Cell, tuple[float, float]]:
    """Return the least and the most seconds of each cell, from the cost of an image, which is measured here.

    It is measured once for each network, views and data set. Self-supervised stages count for the first cell of a seed
    and data set that has them: the others find them in the cache.

    Raises:
        UserError: the data cannot be read.
    """
    measured: dict[tuple[str, str], Estimate] = {}
    costs: dict[object, Cost] = {}
    loaded: dict[str, tuple[Examples, Examples | None]] = {}
    found: dict[Cell, tuple[float, float]] = {}
    paid: set[tuple[str, int]] = set()
    for cell in cells:
        key = cell.method, work.table.data(cell.noise)
        if key not in measured:
            if key[1] not in loaded:
                loaded[key[1]] = load_data(work, cell.noise)
            train, test = loaded[key[1]]
            processes = Processes(precision=work.precision)
            settings = dataclasses.replace(settings_of(work.table, cell), threads=1, processes=processes)
            same = key[1], repr(settings.network), repr(settings.views)
            if same not in costs:
                costs[same] = measure(settings, train)
            measured[key] = estimate(settings, train, 0 if test is None else len(test), cost=costs[same])
        low, high = measured[key].seconds
        images = images_of(work.table, cell)
        if pretrains(cell.method) and images in paid:
            for name in ("pre-training", "clustering"):
                less, more = measured[key].stages.get(name, (0.0, 0.0))
                low, high = low - less, high - more
        paid |= {images} if pretrains(cell.method) else set()
        found[cell] = (low, high)
    return found


def load_data(work: TableRun, noise: str) -> tuple[Examples, Examples | None]:
    """Load the training and test data of a column of a table.

    Raises:
        UserError: as `load`.
    """
    known = work.table.load
    return load(
        work.data(noise), root=None if work.table.is_folder else work.root, size=known.get("size"),
        per_class=known.get("per_class"), limit_test=known.get("limit_test"),
    )  # fmt: skip


def next_cell(work: TableRun, waiting: Sequence[Cell], running: Mapping[Cell, object]) -> Cell | None:
    """Return the first cell that may begin; None if all have to wait.

    Self-supervised stages are computed once: of the cells with the same images that have them, the first begins alone.
    Its first checkpoint means that they are in the cache. Cells without such stages need not wait.
    """
    for cell in waiting:
        if not pretrains(cell.method):
            return cell
        images = images_of(work.table, cell)
        sharing = [other for other in running if pretrains(other.method) and images_of(work.table, other) == images]
        if all(has_checkpoint(work.folder / other.name) for other in sharing):
            return cell
    return None


def start_cell(work: TableRun, cell: Cell) -> subprocess.Popen[bytes]:
    """Begin or resume the training of one cell in a process of its own."""
    path = work.folder / f"{cell.name}.log"
    with writing(path), path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *work.arguments(cell)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children
        )


def end_child(child: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end, close its standard input, and return its exit code."""
    code = child.wait()
    if child.stdin is not None:
        child.stdin.close()
    return code


def _ended(work: TableRun, cell: Cell, code: int, say: Callable[[str], None]) -> str:
    """Report a cell whose process has ended; return what went wrong, or an empty text."""
    run = work.opened(cell)
    if code == 0 and run is not None and run.finished:
        result = read_result(run, cell.noise)
        accuracy = "no accuracy" if result.last is None else f"last accuracy {100 * result.last:.1f} %"
        say(f"{cell.name}: {accuracy}, {result.seconds:.0f} s")
        work.write()
        return ""
    log = work.folder / f"{cell.name}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    reason = f"ended by signal {-code}" if code < 0 else lines[-1] if lines else f"ended with code {code}"
    say(f"{cell.name}: failed: {reason}")
    return f"{reason} (see {log})"


def _seconds_before(path: Path) -> float:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file yet, or a damaged one: then only this command is counted
        return 0.0
