"""The paper's printed figures: for a cell, how far ours is from it, and which of them are doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from scanmix.config import read_toml
from scanmix.methods import METHODS
from scanmix.reproduce.tables import Cell, ResultTable, short


@cache
def published() -> Mapping[str, Any]:
    """Return table -> data -> method -> "best" or "last" -> column -> accuracy in percent; and `notes`, the same way.

    And `rows`, every row of the tables, with its tables and methods.
    Of Table 4 also `top5`, `ilsvrc12` and `ilsvrc12_top5`; of Table 2, where the figure is after RoG, `rog`.
    """
    return read_toml(Path(__file__).with_name("published.toml"))


def printed(table: ResultTable, method: str, noise: str) -> dict[str, float]:
    """Return what the paper prints for a cell, in percent: {"best": 96.1, "last": 95.7}; empty if there is none."""
    if table.paper is None:
        return {}
    name, data = table.paper
    kinds = published().get(name, {}).get(data, {}).get(method, {})
    return {kind: columns[short(noise)] for kind, columns in kinds.items() if short(noise) in columns}


def notes(table: ResultTable) -> list[str]:
    """Return remarks on the printed figures of a table, a sentence or more each."""
    if table.paper is None:
        return []
    name, data = table.paper
    found: list[str] = list(published()["notes"].get(name, {}).get(data, []))
    if absent := [row for row, tables in missing_rows().items() if name in tables]:
        found.append(f"Not in this library: {', '.join(absent)}.")
    rows = {method: kinds["rog"] for method, kinds in published().get(name, {}).get(data, {}).items() if "rog" in kinds}
    if not rows:
        return found
    columns = ", ".join(next(iter(rows.values())))
    figures = "; ".join(f"{method} {', '.join(map(str, row.values()))}" for method, row in rows.items())
    after = f"With RoG on top, by `scanmix evaluate RUN --rog`: {figures} ({columns})."
    return [*found, f"{after} The paper has no figure of these without it."]


def missing_rows() -> dict[str, list[str]]:
    """Return each row of the paper's tables that no method of this library runs -> its tables: {"X": ["table5"]}."""
    rows = published()["rows"]
    return {
        name: [f"table{number}" for number in row["tables"]]
        for name, row in rows.items()
        if not any(method in METHODS for method in row["methods"])
    }


def on_same_data(table: ResultTable) -> bool:
    """Whether a table is on the paper's data, and on all of it, so that its figures can be compared with ours."""
    return table.paper is not None and table.source.partition(":")[0] == table.paper[1] and not table.load


def paper_says(table: ResultTable, cell: Cell) -> str:
    """Return the paper's accuracy for a cell, in words; empty if there is none."""
    found = printed(table, cell.method, cell.noise)
    if table.paper is None or not found:
        return ""
    name, data = table.paper
    return f"{name}, {data}, {short(cell.noise)}: {', '.join(f'{kind} {value} %' for kind, value in found.items())}"
