"""Which tables there are, and the runs (cells) each of them is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanmix.config import UserError, unknown_name
from scanmix.methods import METHODS

ROWS = ("cross_entropy", "mixup", "dividemix", "scan", "scan_dividemix", "scanmix")
NOISES = ("symmetric:0.2", "symmetric:0.5", "symmetric:0.8", "symmetric:0.9", "asymmetric:0.4")


@dataclass(frozen=True)
class Cell:
    """One run of a table."""

    method: str
    noise: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its run folder, such as `scanmix-symmetric-0.8-seed0`."""
        return f"{self.method}-{self.noise.replace(':', '-')}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Methods (rows) by noises (columns), each with every seed, on one data set."""

    name: str
    source: str
    """What `scanmix train` is given as DATA."""
    load: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How much of it: `per_class`, `limit_test`, `size`."""
    methods: tuple[str, ...] = ROWS
    """From cheap to dear: they are shown in this order, and run in the opposite one."""
    noises: tuple[str, ...] = NOISES
    seeds: tuple[int, ...] = (0,)
    """Each seed draws the images kept of each class, the noise and the training anew."""


TABLES: dict[str, ResultTable] = {
    table.name: table
    for table in (
        ResultTable(name="fashion-small", source="fashion-mnist", load={"per_class": 500, "limit_test": 2000}),
        ResultTable(name="digits-small", source="digits"),
        ResultTable(
            name="table6-small",
            source="fashion-mnist",
            load={"per_class": 500, "limit_test": 2000},
            methods=("scan", "dividemix", "scan_dividemix", "scanmix"),
            noises=(*NOISES, "asymmetric:0.49"),
        ),
    )
}


def find_table(name: str, seeds: int = 1) -> ResultTable:
    """Return the table of that name, with the seeds 0 .. seeds - 1.

    Raises:
        UserError: there is no such table.
    """
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    return dataclasses.replace(TABLES[name], seeds=tuple(range(seeds)))


def chosen_cells(table: ResultTable, only: Sequence[str] = ()) -> list[Cell]:
    """Return the runs of a table in the order in which they had best begin.

    Seed by seed: the label-free methods first, whose stages the others share, then the dearest: no long run is left
    to the end. A label-free method runs for one noise alone, since the labels do but name its clusters.
    `only` names methods, noises or both; nothing named of a kind means all of it.

    Raises:
        UserError: `only` names what is not in the table.
    """
    for name in only:
        if name not in (*table.methods, *table.noises):
            raise unknown_name(f"method or noise of {table.name}", name, (*table.methods, *table.noises))
    methods = [name for name in reversed(table.methods) if name in only] or list(reversed(table.methods))
    noises = [name for name in table.noises if name in only] or list(table.noises)
    cells: list[Cell] = []
    for seed in table.seeds:
        free = [method for method in methods if METHODS[method].label_free]
        cells += [Cell(method, table.noises[0], seed) for method in free]
        cells += [Cell(method, noise, seed) for method in methods if method not in free for noise in noises]
    if not cells:
        raise UserError(f"{table.name} has no seeds; ask for at least one")
    return cells


def pretrains(method: str) -> bool:
    """Whether a method has label-free stages, which runs of one seed share."""
    return any(field.name == "pretrain" for field in dataclasses.fields(METHODS[method]))  # type: ignore[arg-type]
