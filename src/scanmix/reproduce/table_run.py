"""A table that is being run: which cells are finished, by their run folders or by the store, and what is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanmix.config import Table, UserError, dump, merge, parse_assignment
from scanmix.distributed.engine import Precision
from scanmix.files import write_text
from scanmix.reproduce.explain import settings_of
from scanmix.reproduce.published_labels import labels_path
from scanmix.reproduce.results import Result, read_result, write_results
from scanmix.reproduce.store import append, read_store, result_of, row_of
from scanmix.reproduce.tables import Cell, ResultTable, chosen_cells
from scanmix.training import Run, open_run

Overrides = Mapping[str, Sequence[str]]
"""Method -> settings as `--set` takes them: {"scanmix": ("epochs=2", "pretrain.epochs=1")}."""


@dataclass
class TableRun:
    """A table that is being run."""

    table: ResultTable
    out: Path
    jobs: int = 2
    root: Path | None = None
    """Folder of the data set, if it is not where it is usually looked for."""
    precision: Precision = "32-true"
    """`bf16-mixed`: encoders compute in bfloat16."""
    overrides: Overrides = field(default_factory=dict)
    earlier: float = 0.0
    """Seconds spent on the table by earlier commands."""
    began: float = field(default_factory=time.monotonic)
    """When this command began, on the monotonic clock (seconds)."""

    @property
    def folder(self) -> Path:
        """The folder of the run folders."""
        return self.out / "runs" / self.table.runs

    def data(self, noise: str) -> str:
        """Return the data of a column, as `scanmix train` takes it.

        Raises:
            UserError: the data is a folder, and none is named.
        """
        if not self.table.is_folder:
            return self.table.data(noise)
        if self.root is None:
            raise UserError(
                f"{self.table.name} needs --root, the folder of its images: train/CLASS/... and test/CLASS/..."
            )
        return str(self.root.expanduser().absolute())

    def arguments(self, cell: Cell) -> list[str]:
        """Return what follows `scanmix` on the command line that trains this cell."""
        known = [f"--{key.replace('_', '-')}={value}" for key, value in self.table.load.items()]
        known += [] if self.root is None or self.table.is_folder else [f"--root={self.root}"]
        known += [] if self.precision == "32-true" else [f"--precision={self.precision}"]
        noise = "none" if cell.noise.startswith("web:") else cell.noise
        if cell.noise in self.table.labels:
            noise = f"file:{labels_path(self.table, cell, self.folder)}"
        recipe = self.table.recipe(cell)
        known += [] if recipe is None else [f"--recipe={recipe}"]
        sets = [f"--set={text}" for text in self.overrides.get(cell.method, ())]
        return [
            "train", self.data(cell.noise), *known, f"--method={cell.method}", f"--noise={noise}",
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
        return settings_of(self.table, cell, overrides).hashed_settings()

    def plan(self, cell: Cell) -> str:
        """Return a hash of `wanted` and of which data is taken: a row of the store with it is of this cell."""
        wanted = {key: value for key, value in self.wanted(cell).items() if "fingerprint" not in key}
        wanted |= {"data": self.table.data(cell.noise), "load": dict(self.table.load)}
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]

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
        wanted_data = {"source": self.data(cell.noise), **self.table.load}
        return run if same and wanted_data.items() <= data.items() else None

    def finished(self, cells: Sequence[Cell]) -> list[tuple[Cell, Run]]:
        """Return the cells that have a finished run, each with its run."""
        opened = ((cell, self.opened(cell)) for cell in cells)
        return [(cell, run) for cell, run in opened if run is not None and run.finished]

    def waiting(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that have no finished run with these settings, neither here nor in the store."""
        stored = self.stored(cells)
        opened = {cell: self.opened(cell) for cell in cells if cell not in stored}
        return [cell for cell, run in opened.items() if run is None or not run.finished]

    def stored(self, cells: Sequence[Cell]) -> dict[Cell, Result]:
        """Return the results of cells that the store has with these settings, whether or not their runs are here.

        Raises:
            UserError: the store is damaged.
        """
        rows = [row for row in read_store(self.out / "store.jsonl") if row["table"] == self.table.runs]
        known = {(row["method"], row["noise"], row["seed"], row.get("plan")): row for row in rows}
        found = {(cell.method, cell.noise, cell.seed) for cell in cells}.intersection(key[:3] for key in known)
        plans = {cell: self.plan(cell) for cell in cells if (cell.method, cell.noise, cell.seed) in found}
        keys = {cell: (cell.method, cell.noise, cell.seed, plan) for cell, plan in plans.items()}
        return {cell: result_of(known[key], self.table.averaged) for cell, key in keys.items() if key in known}

    def write(self) -> None:
        """Write the finished rows of the table, the store of all runs, and the seconds spent on the table."""
        seconds = self.earlier + time.monotonic() - self.began
        write_text(self.folder / "seconds", f"{seconds:.1f}\n")
        order = sorted(chosen_cells(self.table), key=lambda cell: self.table.methods.index(cell.method))
        here = [(cell, read_result(run, cell.noise, self.table.averaged), run) for cell, run in self.finished(order)]
        rows = [row_of(self.table, result, run, self.plan(cell)) for cell, result, run in here]
        append(self.out / "store.jsonl", rows)
        known = self.stored(order) | {cell: result for cell, result, _ in here}
        shown = [known[cell] for cell in order if cell in known]
        write_results(self.table, shown, self.out, self.jobs, seconds, self.precision)
