"""Run the cells of a table, a few at a time, each as its own `scanmix train`, and write the table after each.

Everything about a cell is in its run folder, so a table that was stopped in any way goes on where it was.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanmix.config import Table, UserError, dump, merge, parse_assignment
from scanmix.data.examples import Examples
from scanmix.data.readers import kind_of, load, name_of
from scanmix.doctor.measure import Estimate, estimate
from scanmix.files import locked, write_text, writing
from scanmix.progress import Bar, Quiet
from scanmix.reproduce.explain import settings_of
from scanmix.reproduce.results import read_result, write_results
from scanmix.reproduce.store import append, row_of
from scanmix.reproduce.tables import Cell, ResultTable, chosen_cells, images_of, pretrains
from scanmix.training import Run, open_run, resolve
from scanmix.training.checkpoint import has_checkpoint

POLL_SECONDS = 0.2
Overrides = Mapping[str, Sequence[str]]
"""Method -> settings as `--set` takes them: {"scanmix": ("epochs=2", "pretrain.epochs=1")}."""

CHILD = """
from scanmix.distributed.watchdog import end_with_parent
end_with_parent()
from scanmix.cli import app
app(prog_name="scanmix")
"""
"""Program of a process that trains one cell. It ends when this one does, also by kill -9, which a run survives."""


@dataclass
class TableRun:
    """A table that is being run."""

    table: ResultTable
    out: Path
    jobs: int = 2
    root: Path | None = None
    """Folder of the data set, if it is not where it is usually looked for."""
    overrides: Overrides = field(default_factory=dict)
    earlier: float = 0.0
    """Seconds spent on the table by earlier commands."""
    began: float = field(default_factory=time.monotonic)
    """When this command began, on the monotonic clock (seconds)."""

    @property
    def folder(self) -> Path:
        """The folder of the run folders."""
        return self.out / "runs" / self.table.name

    def arguments(self, cell: Cell) -> list[str]:
        """Return what follows `scanmix` on the command line that trains this cell."""
        known = [f"--{key.replace('_', '-')}={value}" for key, value in self.table.load.items()]
        known += [] if self.root is None else [f"--root={self.root}"]
        noise = "none" if cell.noise.startswith("web:") else cell.noise
        recipe = self.table.recipe(cell)
        known += [] if recipe is None else [f"--recipe={recipe}"]
        sets = [f"--set={text}" for text in self.overrides.get(cell.method, ())]
        return [
            "train", self.table.data(cell.noise), *known, f"--method={cell.method}", f"--noise={noise}",
            f"--seed={cell.seed}", "--threads=1", *sets, f"--out={self.folder / cell.name}",
        ]  # fmt: skip

    def wanted(self, cell: Cell) -> Table:
        """Return everything that decides what a cell computes, except its data.

        Raises:
            UserError: a setting is unknown or out of range.
        """
        overrides: Table = {}
        for text in self.overrides.get(cell.method, ()):
            overrides = merge(overrides, parse_assignment(text))
        source = self.table.data(cell.noise)
        return resolve(
            cell.method, name_of(source), self.table.recipe(cell), overrides, kind=kind_of(source), seed=cell.seed
        ).hashed_settings()

    def opened(self, cell: Cell) -> Run | None:
        """Return the run of a cell if there is one with these settings, finished or not."""
        try:
            run = open_run(self.folder / cell.name)
        except UserError:
            return None
        # A run of an earlier version lacks fields that are newer; it did what is their default now.
        settings = dataclasses.replace(run.settings, settings=dump(run.settings.build_method()))
        wanted, found = self.wanted(cell), settings.hashed_settings()
        same = all(found[key] == value for key, value in wanted.items() if "fingerprint" not in key)
        data = (run.settings.source or {}).get("train", {}).get("load", {})
        wanted_data = {"source": self.table.data(cell.noise), **self.table.load}
        return run if same and wanted_data.items() <= data.items() else None

    def finished(self, cells: Sequence[Cell]) -> list[tuple[Cell, Run]]:
        """Return the cells that have a finished run, each with its run."""
        opened = ((cell, self.opened(cell)) for cell in cells)
        return [(cell, run) for cell, run in opened if run is not None and run.finished]

    def write(self) -> None:
        """Write the finished rows of the table, the store of all runs, and the seconds spent on the table."""
        seconds = self.earlier + time.monotonic() - self.began
        write_text(self.folder / "seconds", f"{seconds:.1f}\n")
        order = sorted(chosen_cells(self.table), key=lambda cell: self.table.methods.index(cell.method))
        done = [(read_result(run, cell.noise), run) for cell, run in self.finished(order)]
        write_results(self.table, [result for result, _ in done], self.out, self.jobs, seconds)
        append(self.out / "store.jsonl", [row_of(self.table, result, run) for result, run in done])


def run_table(
    table: ResultTable, out: Path, jobs: int = 2, overrides: Overrides | None = None, *,
    only: Sequence[str] = (), root: Path | None = None, bar: Bar | None = None,
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
        bar: shows how many cells are finished.
        say: called with a line for each cell that ends.

    Returns: the reason for each cell that failed, by name. The other cells run all the same.

    Raises:
        UserError: the data cannot be read, a setting or a name in `only` is wrong, or another process runs this table.
    """
    work = TableRun(table, out, jobs, root, overrides or {})
    cells, bar = chosen_cells(table, only), bar or Quiet()
    for cell in cells:
        work.wanted(cell)  # raises if a setting is mistyped, before anything runs
    waiting = [cell for cell in cells if not is_finished(work, cell)]
    if waiting:  # raises once if data is missing, and not in every cell
        load_data(table, waiting[0].noise, root)
    with writing(work.folder):
        work.folder.mkdir(parents=True, exist_ok=True)
    with locked(work.folder, "being reproduced", "table.lock"):
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

    It is measured once for each method and data set. Self-supervised stages count for the first cell of a seed and data
    set that has them: the others find them in the cache.

    Raises:
        UserError: the data cannot be read.
    """
    measured: dict[tuple[str, str], Estimate] = {}
    found: dict[Cell, tuple[float, float]] = {}
    paid: set[tuple[str, int]] = set()
    for cell in cells:
        key = cell.method, work.table.data(cell.noise)
        if key not in measured:
            train, test = load_data(work.table, cell.noise, work.root)
            settings = dataclasses.replace(settings_of(work.table, cell), threads=1)
            measured[key] = estimate(settings, train, 0 if test is None else len(test))
        low, high = measured[key].seconds
        images = images_of(work.table, cell)
        if pretrains(cell.method) and images in paid:
            for name in ("pre-training", "clustering"):
                less, more = measured[key].stages.get(name, (0.0, 0.0))
                low, high = low - less, high - more
        paid |= {images} if pretrains(cell.method) else set()
        found[cell] = (low, high)
    return found


def load_data(table: ResultTable, noise: str, root: Path | None) -> tuple[Examples, Examples | None]:
    """Load the training and test data of a column of a table.

    Raises:
        UserError: as `load`.
    """
    known = table.load
    return load(
        table.data(noise), root=root, size=known.get("size"), per_class=known.get("per_class"),
        limit_test=known.get("limit_test"),
    )  # fmt: skip


def is_finished(work: TableRun, cell: Cell) -> bool:
    """Whether a cell has a finished run with these settings."""
    run = work.opened(cell)
    return run is not None and run.finished


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
