"""A folder with one sub-folder of images per class."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from scanmix.config import DataError
from scanmix.data.decoding import find_pictures, pictures_in, readable
from scanmix.data.examples import Examples
from scanmix.data.readers.pictures import read_pictures

Row = tuple[str, Path, str]  # id, file, class name
TEST_PARTS = ("test", "val", "valid", "validation")


def read_folder(folder: Path, size: int | None = None) -> tuple[Examples, Examples | None]:
    """Read `folder/<class>/...`, or `folder/train/<class>/...` and `folder/test/<class>/...` (or `val`).

    Shape: images (N, 1 or 3, size, size) uint8.

    Raises:
        DataError: if there are fewer than two classes, no readable image, or a test class new to training.
    """
    folder = folder.absolute()
    train_part, test_part = find_parts(folder)
    train_rows = _rows(folder, train_part)
    test_rows = _rows(folder, test_part) if test_part else []
    if len({name for _, _, name in train_rows}) < 2:
        raise DataError(
            f"{folder} needs one sub-folder of images for each class, and at least two of them "
            f"(found {len({name for _, _, name in train_rows})})."
        )
    return to_examples(folder.name, train_rows, test_rows, size)


def find_parts(folder: Path) -> tuple[Path, Path | None]:
    """Where training and test classes lie: in `train/` and `test/` (or `val/`) if these hold any, else in `folder`."""
    if not _holds_classes(folder / "train"):
        return folder, None
    return folder / "train", next((folder / name for name in TEST_PARTS if _holds_classes(folder / name)), None)


def class_folders(folder: Path) -> list[Path]:
    """Return the sub-folders that stand for a class each, by name, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _holds_classes(folder: Path) -> bool:
    return folder.is_dir() and any(True for inside in class_folders(folder) for _ in pictures_in(inside))


def _rows(top: Path, folder: Path) -> list[Row]:
    return [
        (path.relative_to(top).as_posix(), path, inside.name)
        for inside in class_folders(folder)
        for path in find_pictures(inside)
    ]


def to_examples(
    name: str, train_rows: Sequence[Row], test_rows: Sequence[Row], size: int | None, skipped: tuple[str, ...] = ()
) -> tuple[Examples, Examples | None]:
    """Read the files of training and test rows (id, file, class name) into images of one size and depth.

    Raises:
        DataError: if a test class is none of training's, or no training or no test image can be read.
    """
    names = sort_names({label for _, _, label in train_rows})
    odd = [name for name in names if readable(name) != name]
    if odd:
        raise DataError(f"the name of class {readable(odd[0])} of {name!r} is not UTF-8; rename its folder.")
    strange = sorted({label for _, _, label in test_rows} - set(names))
    if strange:
        raise DataError(f"test images of {name!r} have class {strange[0]!r}, which no training image has.")
    number = {label: i for i, label in enumerate(names)}
    rows = [*train_rows, *test_rows]
    pictures = read_pictures([path for _, path, _ in rows], size, sized_by=len(train_rows))

    def part(first: int, stop: int, set_aside: tuple[str, ...]) -> Examples:
        places = slice(bisect_left(pictures.kept, first), bisect_left(pictures.kept, stop))
        kept = [rows[row] for row in pictures.kept[places]]
        if not kept:
            split = "test" if first else "training"
            raise DataError(f"not one of the {split} images of {name!r} could be read.")
        return Examples(
            images=pictures.images[places],
            labels=torch.tensor([number[label] for _, _, label in kept]),
            class_names=names,
            ids=tuple(row_id for row_id, _, _ in kept),
            name=name,
            paths=tuple(str(path) for _, path, _ in kept),
            skipped=set_aside,
        )

    train = part(0, len(train_rows), skipped + pictures.skipped)
    return train, part(len(train_rows), len(rows), ()) if test_rows else None


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names: as numbers if every one is a whole number, else as text."""
    found = sorted(names)
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in found):
        found.sort(key=int)
    return tuple(found)
