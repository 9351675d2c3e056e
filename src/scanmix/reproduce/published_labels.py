"""Labels that others have published for all images of a data set, for the images that a seed draws.

`scanmix train --noise file:PATH` takes one label for each image it trains on. Published files have one for each of all
images, so a file is written that has those of the images drawn. Which images these are does not depend on the noise:
self-supervised stages are then shared by all columns of a table.
"""

from __future__ import annotations

from pathlib import Path

from scanmix.config import UserError
from scanmix.data.noise import from_file
from scanmix.data.readers import is_known, load
from scanmix.files import write_json, writing
from scanmix.reproduce.tables import Cell, ResultTable


def labels_path(table: ResultTable, cell: Cell, folder: Path) -> Path:
    """Return where the labels of a cell are written: one file for each noise and seed."""
    return folder / "labels" / f"{cell.noise.replace(':', '-')}-seed{cell.seed}.json"


def write_labels(table: ResultTable, cell: Cell, folder: Path, root: Path | None) -> None:
    """Write the published labels of the images that the seed of a cell draws, in their order.

    Raises:
        UserError: the data or the file of labels is missing or damaged, or is about other images.
    """
    path, place = labels_path(table, cell, folder), table.labels[cell.noise]
    everything = load(table.source, root=root)[0]
    drawn = load(table.source, root=root, per_class=table.load.get("per_class"), seed=cell.seed)[0]
    if is_known(place):
        other = load(place, root=root)[0]
        if [_number(name) for name in other.ids] != [_number(name) for name in everything.ids]:
            raise UserError(f"{place} has labels of other images than {table.source}")
        labels = other.labels
    else:
        if root is None:
            raise UserError(f"{table.name} needs --root, the folder that holds {place} beside the images")
        labels = from_file(root / place, len(everything), everything.num_classes)
    where = {name: position for position, name in enumerate(everything.ids)}
    chosen = [int(labels[where[name]]) for name in drawn.ids]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"noise_labels": chosen})


def _number(name: str) -> str:
    """Return an id without the name of its data set: `train/00012` of `cifar10/train/00012`."""
    return name.partition("/")[2]
