"""Labels that others have published for all images of a data set, for the images that a seed draws.

`scanmix train --noise file:PATH` takes one label for each image it trains on. Published files have one for each of all
images, so a file is written that has those of the images drawn. Which images these are does not depend on the noise:
self-supervised stages are then shared by all columns of a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.noise import from_file
from scanmix.data.readers import load
from scanmix.data.sources import is_known
from scanmix.files import write_json, writing
from scanmix.reproduce.tables import Cell, ResultTable


def labels_path(table: ResultTable, cell: Cell, folder: Path) -> Path:
    """Return where the labels of a cell are written: one file for each noise and seed."""
    return folder / "labels" / f"{cell.noise.replace(':', '-')}-seed{cell.seed}.json"


def write_labels(table: ResultTable, cells: Iterable[Cell], folder: Path, root: Path | None) -> None:
    """Write the published labels of the images that the seeds of these cells draw, in the order of the images.

    Cells of other noises are left out; without any, nothing is read.

    Raises:
        UserError: the data or a file of labels is missing or damaged, or is about other images.
    """
    wanted = {labels_path(table, cell, folder): cell for cell in cells if cell.noise in table.labels}
    if not wanted:
        return
    everything = load(table.source, root=root)[0]
    count = table.load.get("per_class", 0)
    place = {name: position for position, name in enumerate(everything.ids)}
    seeds = {cell.seed for cell in wanted.values()}
    drawn = {seed: everything.per_class(count, seed) if count else everything for seed in seeds}
    noises = {cell.noise for cell in wanted.values()}
    labels = {noise: _published(table, noise, everything, root).tolist() for noise in noises}
    for path, cell in wanted.items():
        chosen = [labels[cell.noise][place[name]] for name in drawn[cell.seed].ids]
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"noise_labels": chosen})


def _published(table: ResultTable, noise: str, everything: Examples, root: Path | None) -> Tensor:
    """Return the labels of all N images of the data set that are published for a noise. Shape: -> (N,) int64."""
    place = table.labels[noise]
    if is_known(place):
        other = load(place, root=root)[0]
        if list(map(_number, other.ids)) != list(map(_number, everything.ids)):
            raise UserError(f"{place} has labels of other images than {table.source}")
        return other.labels
    if root is None:
        raise UserError(f"{table.name} needs --root, the folder that holds {place} beside the images")
    return from_file(root / place, len(everything), everything.num_classes)


def _number(name: str) -> str:
    """Return an id without the name of its data set: `train/00012` of `cifar10/train/00012`."""
    return name.partition("/")[2]
