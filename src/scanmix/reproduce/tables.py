"""The tables that can be reproduced, and the runs (cells) that each consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanmix.config import UserError, recipe_names, unknown_name
from scanmix.data.sources import name_of
from scanmix.methods import METHODS

ROWS = ("cross_entropy", "mixup", "dividemix", "scan", "scan_dividemix", "scanmix")
NOISES = ("symmetric:0.2", "symmetric:0.5", "symmetric:0.8", "symmetric:0.9", "asymmetric:0.4")
ASYMMETRIC49 = "asymmetric:0.49"
RIVALS = (
    "cross_entropy", "mixup", "co_teaching_plus", "pencil", "mlnt", "m_correction", "m_correction_sh", "mentormix",
    "elr_plus", "pes_semi", "moit_plus", "fsr", "drpl", "dividemix", "scanmix",
)  # fmt: skip
"""Rows of Table 1 that a method of this library runs (`paper.missing_rows` names the others)."""
RELABELED = ("cross_entropy", "bootstrap", "forward", "backward", "d2l", "dividemix", "scanmix")
"""Rows of Table 2; the paper's figures for all but the last two are with RoG."""
ABLATION = ("scan", "dividemix", "scan_dividemix", "scanmix")
SHORT = {"symmetric": "sym", "symmetric-exclusive": "symx", "asymmetric": "asym", "instance": "inst", "web": "web"}
"""Kinds of noise -> how columns of the paper's tables are named: `sym90`, `web40`."""
PUBLISHED = ("authors", "people")
"""Kinds of noise whose labels are read from published files: `authors:sym80`, `people:worse`."""


@dataclass(frozen=True)
class Cell:
    """One run of a table."""

    method: str
    noise: str
    """As `--noise` takes it; or `web:0.4`, a variant of the data that comes with such noise; or labels that are
    published (`ResultTable.labels`)."""
    seed: int

    @property
    def name(self) -> str:
        """The name of its run folder, such as `scanmix-symmetric-0.8-seed0`."""
        return f"{self.method}-{self.noise.replace(':', '-')}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Methods (rows) by noises (columns), each with every seed, on one data set."""

    name: str
    source: str
    """What `scanmix train` is given as DATA; a name alone where that is the folder that `--root` names."""
    is_folder: bool = False
    """Whether the data is a folder of images, the one that a person names with `--root`."""
    load: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How much of the data: `per_class`, `limit_test`, `size`."""
    methods: tuple[str, ...] = ROWS
    """From cheap to expensive: they are shown in this order, and run in the opposite one."""
    noises: tuple[str, ...] = NOISES
    seeds: tuple[int, ...] = (0,)
    """Each seed decides the images that are kept of each class, the noise and the training."""
    thrice: tuple[str, ...] = ()
    """Methods that are run with seeds 0 to 2 at least, where the others have `seeds`."""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Noise -> where its labels of all training images are, where they are published: a file below `--root`, or a data
    set of the same images with other labels (`reproduce/published_labels.py`)."""
    averaged: int = 10
    """How many epochs at the end of a run the accuracy that is shown is the mean of."""
    paper: tuple[str, str] | None = None
    """Table and data set of the paper whose figures stand beside ours (`reproduce/paper.py`)."""
    part_of: str = ""
    """Table whose recipes and runs this one shares: what is finished for one is finished for the other."""
    oracle: bool = False
    """Take a recipe that was chosen for one noise (`cifar10/sym90/dividemix`), if there is one."""

    def data(self, noise: str) -> str:
        """Return the data of a column, as `scanmix train` takes it."""
        return f"{self.source}:{noise.partition(':')[2]}" if noise.startswith("web:") else self.source

    @property
    def runs(self) -> str:
        """The name under which runs are kept and stored: that of the table that they belong to."""
        return self.part_of or self.name

    def recipe(self, cell: Cell) -> str | None:
        """Return the recipe of a cell where it is not that of its data.

        It is that of the table's name (`cifar10-small/any/scanmix`), or the one that was chosen for the noise of the
        cell, if that is wanted, where there is such a recipe.
        """
        chosen = f"{name_of(self.source)}/{short(cell.noise)}/{cell.method}" if self.oracle else ""
        own = f"{self.runs.removesuffix('-oracle')}/any/{cell.method}"
        known = recipe_names()
        return next((name for name in (chosen, own) if name in known), None)

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """Return the seeds of a method, in order."""
        return tuple(sorted({*self.seeds, *(range(3) if method in self.thrice else ())}))


def short(noise: str) -> str:
    """Return the name of a noise in a column of the paper: `sym90`, `densenet`; `given` if the data is noisy itself."""
    kind, _, value = noise.partition(":")
    if kind == "semantic":
        return value.partition(":")[0]
    if kind in PUBLISHED:
        return value
    return f"{SHORT[kind]}{round(100 * float(value))}" if kind in SHORT else "given"


FASHION = {"per_class": 500, "limit_test": 2000}
CIFAR = {"per_class": 1000, "limit_test": 5000}
BEST = ("cross_entropy", "ssr", "ssr_plus", "dividemix", "scan_dividemix", "scanmix")
"""The best five methods of zoo-small, by the mean over its columns, and DivideMix, which is the sixth."""
BEST_FOUR = ("ssr", "ssr_plus", "scan_dividemix", "scanmix")
BEST_TWELVE = (
    "cross_entropy", "mixup", "mentornet", "pes", "mentormix", "co_teaching", "c2d", "scan_dividemix", "scanmix",
    "dividemix", "ssr", "ssr_plus",
)  # fmt: skip
"""The best twelve methods of zoo-small, by the mean over its columns."""
DRAWN_BY_AUTHORS: Mapping[str, str] = {
    **{f"authors:sym{rate}": f"noise/0.{rate}.json" for rate in (20, 50, 80, 90)},
    **{f"authors:asym{rate}": f"noise/0.{rate}_asym.json" for rate in (40, 49)},
}
SEMANTIC_BY_AUTHORS: Mapping[str, str] = {
    f"authors:{name}": f"noise/0.40_semantic_{name}.json" for name in ("densenet", "resnet", "vgg")
}
AUTHORS: Mapping[str, str] = {**DRAWN_BY_AUTHORS, **SEMANTIC_BY_AUTHORS}
"""Noise of CIFAR-10 -> file of labels that the authors of ScanMix published with their code."""
PEOPLE: Mapping[str, str] = {f"people:{name}": f"cifar10n:{name}" for name in ("aggre", "random1", "worse")}
"""Labels of CIFAR-10 by people -> data set that has them."""
SEMANTIC = ("densenet:0.32", "resnet:0.38", "vgg:0.34"), ("densenet:0.34", "resnet:0.37", "vgg:0.37")
"""Networks and rates of Table 2, for CIFAR-10 and CIFAR-100."""

TABLES: dict[str, ResultTable] = {
    table.name: table
    for table in (
        ResultTable(name="fashion-small", source="fashion-mnist", load=FASHION),
        ResultTable(name="digits-small", source="digits"),
        ResultTable(
            name="zoo-small", source="fashion-mnist", load=FASHION,
            # exact_em takes 2,000 images at most; the others leave a network as it is, and this one is not pretrained.
            # No label of this data is known to be right.
            methods=tuple(
                name
                for name, method in METHODS.items()
                if name not in ("exact_em", "neighbors", "linear", "wann", "propagate")
                and not method.about.needs_trusted
            ),
        ),
        ResultTable(
            name="table1-small", source="fashion-mnist", load=FASHION, noises=(*NOISES, ASYMMETRIC49),
            methods=RIVALS, paper=("table1", "cifar10"),
        ),
        ResultTable(
            name="table2-small", source="fashion-mnist", load=FASHION, paper=("table2", "cifar10"),
            methods=("cross_entropy", "ssr", "dividemix", "scanmix"),
            noises=tuple(f"semantic:{network}:0.35" for network in ("densenet", "resnet", "vgg")),
        ),
        ResultTable(
            name="table6-small", source="fashion-mnist", load=FASHION, noises=(*NOISES, ASYMMETRIC49),
            methods=ABLATION, paper=("table6", "cifar10"),
        ),
        ResultTable(
            name="cifar10-small", averaged=3, source="cifar10", load=CIFAR,
            noises=(*AUTHORS, *PEOPLE), labels={**AUTHORS, **PEOPLE}, methods=(*BEST_TWELVE, "accord"),
            thrice=(*BEST, "accord"),
        ),
        ResultTable(
            name="mini100-small", averaged=3, source="mini-imagenet32", is_folder=True, load={"size": 32},
            noises=NOISES[:3], methods=(*BEST_TWELVE, "accord"), thrice=BEST_FOUR,
        ),
        ResultTable(
            name="clothing-small", averaged=3, source="clothing-dataset-small", is_folder=True, load={"size": 64},
            noises=("none", "symmetric:0.4"), methods=(*BEST_TWELVE, "accord"),
        ),
        *(
            ResultTable(
                name=f"{table}-cifar-small", part_of="cifar10-small", averaged=3, source="cifar10", load=CIFAR,
                paper=(table, "cifar10"), methods=methods, noises=noises, labels=AUTHORS, thrice=BEST,
            )
            for table, methods, noises in (
                ("table1", tuple(name for name in RIVALS if name in BEST_TWELVE), tuple(DRAWN_BY_AUTHORS)),
                ("table2", ("cross_entropy", "ssr", "dividemix", "scanmix"), tuple(SEMANTIC_BY_AUTHORS)),
                ("table6", ABLATION, tuple(DRAWN_BY_AUTHORS)),
            )
        ),
        *(
            ResultTable(
                name=f"{table}-{data}", source=data, paper=(table, data), methods=methods,
                noises=(*NOISES, ASYMMETRIC49) if data == "cifar10" else NOISES[:4],
            )
            for table, methods in (("table1", RIVALS), ("table6", ABLATION))
            for data in ("cifar10", "cifar100")
        ),
        *(
            ResultTable(
                name=f"table2-{data}", source=data, paper=("table2", data), methods=RELABELED,
                noises=tuple(f"semantic:{labeler}" for labeler in labelers),
            )
            for data, labelers in zip(("cifar10", "cifar100"), SEMANTIC, strict=True)
        ),
        ResultTable(
            name="table3-red-mini-imagenet", source="red-mini-imagenet", paper=("table3", "red-mini-imagenet"),
            methods=("cross_entropy", "mixup", "mentormix", "dividemix", "famus", "scanmix"),
            noises=("web:0.2", "web:0.4", "web:0.6", "web:0.8"),
        ),
        ResultTable(
            name="table4-webvision", source="webvision:50", paper=("table4", "webvision"),
            methods=(
                "forward", "decoupling", "d2l", "mentornet", "co_teaching", "incv", "mentormix", "elr_plus",
                "moit_plus", "fsr", "dividemix", "scanmix",
            ),
            noises=("none",),
        ),
        ResultTable(
            name="table5-clothing1m", source="clothing1m", paper=("table5", "clothing1m"),
            methods=(
                "cross_entropy", "metacleaner", "mlnt", "m_correction", "deep_self", "pencil", "cleannet", "dividemix",
                "scanmix",
            ),
            noises=("none",),
        ),
    )
}  # fmt: skip


def find_table(
    name: str, seeds: int = 1, data: str | None = None, scale: str = "paper", *, oracle: bool = False
) -> ResultTable:
    """Return the table of that name, with the seeds 0 .. seeds - 1.

    `table6` with `data` is `table6-cifar10`, and with `scale` "small" `table6-small`, with "cifar-small"
    `table6-cifar-small`; without both it is the only one that there is.

    Raises:
        UserError: there is no such table, or there are several.
    """
    known = [key for key in TABLES if key.startswith(f"{name}-")]
    full = f"{name}-{scale}" if scale != "paper" else f"{name}-{data}" if data else name
    if full not in TABLES and full == name:
        of_the_paper = [key for key in known if not key.endswith("-small")]
        if len(of_the_paper) > 1:
            choices = ", ".join(key.removeprefix(f"{name}-") for key in of_the_paper)
            raise UserError(
                f"{name} is of several data sets; choose one with --data: {choices}; or --scale small, cifar-small"
            )
        full = of_the_paper[0] if of_the_paper else full
    if full not in TABLES:
        raise unknown_name("table", full, TABLES)
    table = dataclasses.replace(TABLES[full], seeds=tuple(range(seeds)), oracle=oracle)
    part_of = f"{table.part_of}-oracle" if table.part_of else ""
    return dataclasses.replace(table, name=f"{table.name}-oracle", part_of=part_of) if oracle else table


def find_cell(path: str, seeds: int = 1, *, oracle: bool = False) -> tuple[ResultTable, Cell]:
    """Return the table and the cell, of seed 0, that a path such as `table1/cifar100/sym90/scanmix` names.

    In place of the data set there may be `small`.

    Raises:
        UserError: there is no such cell.
    """
    parts = path.split("/")
    if len(parts) != 4:
        raise UserError(f"{path!r} is no cell; write TABLE/DATA/COLUMN/METHOD, such as table1/cifar100/sym90/scanmix")
    table = find_table(f"{parts[0]}-{parts[1]}", seeds, oracle=oracle)
    columns = {short(noise): noise for noise in table.noises}
    if parts[2] not in columns:
        raise unknown_name(f"column of {table.name}", parts[2], columns)
    if parts[3] not in table.methods:
        raise unknown_name(f"method of {table.name}", parts[3], table.methods)
    return table, Cell(parts[3], columns[parts[2]], 0)


def chosen_cells(table: ResultTable, only: Sequence[str] = ()) -> list[Cell]:
    """Return the runs of a table in the order in which they should begin.

    The order is seed by seed: first the self-supervised methods, whose stages the others share, then the most expensive
    ones, so that no long run is left to the end. A self-supervised method runs for one noise alone, since labels only
    name its clusters. `only` names methods, noises (as `symmetric:0.9` or `sym90`) and seeds (`seed0`); without a
    method it means all methods, without a noise all noises, and without a seed all seeds.

    Raises:
        UserError: `only` names what is not in the table.
    """
    columns = {short(noise): noise for noise in table.noises}
    only = [columns.get(name, name) for name in only]
    seeds = {f"seed{seed}": seed for method in table.methods for seed in table.seeds_of(method)}
    for name in only:
        if name not in (known := (*table.methods, *table.noises, *seeds)):
            raise unknown_name(f"method, noise or seed of {table.name}", name, known)
    methods = [name for name in reversed(table.methods) if name in only] or list(reversed(table.methods))
    noises = [name for name in table.noises if name in only] or list(table.noises)
    cells: list[Cell] = []
    for seed in sorted({seeds[name] for name in only if name in seeds} or set(seeds.values())):
        having = [method for method in methods if seed in table.seeds_of(method)]
        free = [method for method in having if METHODS[method].self_supervised]
        cells += [Cell(method, table.noises[0], seed) for method in free]
        cells += [Cell(method, noise, seed) for method in having if method not in free for noise in noises]
    if not cells:
        raise UserError(f"{table.name} has no seeds; ask for at least one")
    return cells


def pretrains(method: str) -> bool:
    """Whether a method has self-supervised stages, which runs on the same images share."""
    return "pre-training" in METHODS[method]().passes(1, 1.0)


def images_of(table: ResultTable, cell: Cell) -> tuple[str, int]:
    """Return what identifies the images of a cell: runs with equal ones share their self-supervised stages."""
    return table.data(cell.noise), cell.seed
