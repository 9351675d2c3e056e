"""The store of all runs that tables have counted: one line of JSON each, so that a diff shows which run is new."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scanmix.config import UserError
from scanmix.files import checked, locked, reading, write_text, writing
from scanmix.reproduce.results import Result, mean_of_last
from scanmix.reproduce.tables import ResultTable
from scanmix.training import Run

StoredRow = Mapping[str, Any]
PATIENCE = 30.0
"""Seconds to wait for another table that is writing."""


def row_of(table: ResultTable, result: Result, run: Run, plan: str) -> StoredRow:
    """Return the row of a finished run: settings, results and versions. Shares are 0..1, times are seconds.

    `settings` is the hash of the run, with its data; `plan` that of the cell, which is known before the data are.
    """
    return {
        "table": table.runs, "data": table.data(result.noise), **table.load, "method": result.method,
        "noise": result.noise, "seed": result.seed,
        "settings": run.settings.config_hash()[:16], "plan": plan, "recipe": result.recipe,
        "oracle": result.oracle, "asked_noise": result.asked, "actual_noise": result.actual,
        "estimated_noise": result.estimated, "best": result.best, "last": result.last,
        "last10": mean_of_last(run.accuracies, 10), "seconds": round(result.seconds, 1),
        "stages": {stage: round(value, 1) for stage, value in result.stages.items()},
        "version": result.version, "git": result.git, "torch": result.torch,
        "accuracies": [round(value, 6) for value in run.accuracies],
    }  # fmt: skip


def result_of(row: StoredRow, averaged: int) -> Result:
    """Return what `row_of` has written of a result, with the mean of so many epochs at the end."""
    same = ("method", "noise", "seed", "best", "last", "seconds", "recipe", "oracle", "version", "git", "torch")
    noise = {name: row[f"{name}_noise"] for name in ("asked", "actual", "estimated")}
    final = mean_of_last(row["accuracies"], averaged)
    return Result(**{name: row[name] for name in same}, **noise, final=final, stages=row["stages"])


def read_store(path: Path) -> list[StoredRow]:
    """Return the rows of a store; none where there is no file.

    Raises:
        UserError: a line is no JSON; says which.
    """
    if not path.is_file():
        return []
    rows: list[StoredRow] = []
    with reading(path):
        for number, line in enumerate(path.read_bytes().decode().splitlines(), start=1):
            try:
                rows.append(checked(dict[str, Any], line))
            except ValueError:
                raise UserError(f"{path}, line {number} is no JSON object; mend or delete that line") from None
    return rows


def append(path: Path, rows: Iterable[StoredRow]) -> None:
    """Add the rows that are not in the store; a run is identified by table, method, noise, seed and settings.

    Several tables may write to one store: they wait for each other.

    Raises:
        UserError: the store is damaged, or another process holds its lock for longer than `PATIENCE`. CannotWrite: it
            cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent, "writing its store", "store.lock", patience=PATIENCE):
        known = read_store(path)
        keys = {_key(row) for row in known}
        new = [row for row in rows if _key(row) not in keys]
        if new:
            write_text(path, "".join(json.dumps(row) + "\n" for row in [*known, *new]))


def _key(row: StoredRow) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("table", "method", "noise", "seed", "settings"))
