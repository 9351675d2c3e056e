"""Every run that a table has counted, one line of JSON each: plain, and a difference shows which run is new."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scanmix.config import UserError
from scanmix.experiments.results import Result
from scanmix.experiments.tables import ResultTable
from scanmix.files import write_text
from scanmix.runs import Run

Row = Mapping[str, Any]


def row_of(table: ResultTable, result: Result, run: Run) -> Row:
    """Say all that matters of a finished run: what it was, what came out, what computed it. Shares are 0..1."""
    return {
        "table": table.name, "data": table.data(result.noise), **table.load, "method": result.method,
        "noise": result.noise, "seed": result.seed, "settings": run.settings.identity()[:16], "recipe": result.recipe,
        "oracle": result.oracle, "actual_noise": result.actual, "best": result.best, "last": result.last,
        "last10": result.last10, "seconds": round(result.seconds, 1), "version": result.version, "git": result.git,
        "torch": result.torch, "accuracies": [round(value, 6) for value in run.accuracies],
    }  # fmt: skip


def read_store(path: Path) -> list[Row]:
    """Return the rows of a store; none where there is no file.

    Raises:
        UserError: a line is no JSON; says which.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}, line {number} is no JSON; mend or delete that line") from None
    return rows


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add the rows that are not there yet: a run is known by its table, method, noise, seed and settings."""
    known = read_store(path)
    seen = {_key(row) for row in known}
    new = [row for row in rows if _key(row) not in seen]
    if new:
        text = "".join(json.dumps(row) + "\n" for row in [*known, *new])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("table", "method", "noise", "seed", "settings"))
