"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from scanmix.config import DataError
from scanmix.data.decoding import images_in, readable, sort_files
from scanmix.data.examples import Examples
from scanmix.data.readers.pairs import Entry, Pair, to_examples

ListedImage = tuple[str, Path, str]  # id, file, class name
TRAIN_PARTS = ("train", "training")
TEST_PARTS = ("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation")
"""Names of folders that hold a part of the data, in any letter case. Of several test parts, the first in this order is
read."""
PART_NAME = re.compile(rf"({'|'.join(TRAIN_PARTS + TEST_PARTS)})(?:[ _.-]?(?:set|data|images|pictures|split))*")
LAYOUT = "lay the images out as train/CLASS/... and test/CLASS/..."
NAMED = 5
"""Number of folders that a message lists."""


class LostClassError(DataError):
    """Not one training image of a class can be read; `pair` has the training and test examples that are left."""

    def __init__(self, message: str, pair: Pair) -> None:
        """Store the examples, so that `scanmix doctor` can check data that cannot be trained on."""
        super().__init__(message)
        self.pair = pair


class Parts(NamedTuple):
    """The folders with the class folders for training and for testing."""

    train: Path
    test: Path | None
    unclear: str = ""
    """A sentence that says why these folders are not certain; empty if they are."""


def read_folder(folder: Path, size: int | None = None, least_classes: int = 2) -> Pair:
    """Read `folder/<class>/...`, or `folder/train/<class>/...` and `folder/test/<class>/...`.

    The parts may have other names of the same meaning, such as `Training`, `val` or `test_set`. One warning counts the
    files in class folders that look like images but are of a format that is not read.

    Shape: images (N, 1 or 3, size, size) uint8.

    Raises:
        DataError: there are fewer classes than `least_classes`, a class has no readable image, a test class is not a
            class of training, or it is not certain which folders are classes and which are parts of the data.
    """
    folder = folder.absolute()
    parts = find_parts(folder)
    if parts.unclear:
        raise DataError(parts.unclear)
    train_rows, unread = _rows(folder, parts.train)
    test_rows, unread_tests = _rows(folder, parts.test) if parts.test else ([], {})
    found = {name for _, _, name in train_rows}
    lost = next((name for name in unread if name not in found), None)
    if lost is not None:
        raise DataError(
            f"class {lost!r} of {folder} would be lost: it holds {_by_suffix(unread[lost])} alone, which are not read; "
            "convert them to PNG or JPEG, or remove the folder."
        )
    if len(found) < least_classes:
        raise DataError(
            f"{folder} needs one sub-folder of images for each class, and at least "
            f"{'two' if least_classes == 2 else 'one'} of them (found {len(found)})."
        )
    _warn_of_unread(folder, [path for files in (*unread.values(), *unread_tests.values()) for path in files])
    _warn_of_unread_folders(folder, parts)
    return from_class_names(folder.name, train_rows, test_rows, size)


def find_parts(folder: Path) -> Parts:
    """Find the folders of training and test classes: sub-folders named as parts if they hold classes, else `folder`."""
    named = {path: part for path in class_folders(folder) if (part := part_of(path.name)) is not None}
    holding = [path for path in named if _holds_classes(path)]
    train = [path for path in holding if named[path] in TRAIN_PARTS]
    test = [path for path in holding if named[path] in TEST_PARTS]
    if len(train) > 1:
        return Parts(train[0], None, f"{folder} has several training parts, {_listed(train)}; make them one folder.")
    if train:
        test.sort(key=lambda path: (TEST_PARTS.index(named[path]), path.name != named[path], path.name))
        return Parts(train[0], test[0] if test else None)
    if test:
        whole = f"give {test[0]} if it is the whole" if len(test) == 1 else "give one of them if it is the whole"
        unclear = f"{folder} has {_listed(test)} with class folders inside, but no train with class folders; {LAYOUT}, "
        return Parts(folder, None, f"{unclear}or {whole}.")
    filled = [path for path in named if any(True for _ in images_in(path))]
    if not filled or _is_class(filled, class_folders(folder)):
        return Parts(folder, None)
    what = "is a class or a part" if len(filled) == 1 else "are classes or parts"
    unclear = f"it cannot be told whether {_listed(filled)} in {folder} {what} of the data; {LAYOUT}, "
    return Parts(folder, None, f"{unclear}or rename what is a class, for example to {filled[0].name}_class.")


def part_of(name: str) -> str | None:
    """Return the part that a folder is named after: "test" for `Test` and `test_set`; None for any other name."""
    found = PART_NAME.fullmatch(name.strip().lower())
    return None if found is None else found[1]


def class_folders(folder: Path) -> list[Path]:
    """Return the sub-folders, each of which is a class, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def folders_not_read(folder: Path, parts: Parts) -> list[Path]:
    """Return the folders of images beside the parts, sorted by name; none if the classes lie in `folder` itself."""
    beside = [path for path in class_folders(folder) if path not in parts] if parts.train != folder else []
    return [path for path in beside if any(True for _ in images_in(path))]


def _is_class(filled: Sequence[Path], folders: Sequence[Path]) -> bool:
    """Whether a folder that is named like a part and holds images directly is a class all the same.

    It must be the only such folder, with other classes beside it: `train` may be the vehicle, and `valid` a class
    beside `invalid`. The other names of parts are not likely names of classes.
    """
    if len(filled) > 1 or len(folders) < 2:
        return False
    others = {path.name.lower() for path in folders if path not in filled}
    name = filled[0].name.lower()
    return name == "train" or (name == "valid" and "invalid" in others)


def _holds_classes(folder: Path) -> bool:
    return any(True for inside in class_folders(folder) for _ in images_in(inside))


def _listed(folders: Sequence[Path]) -> str:
    names = [path.name for path in folders[:NAMED]]
    more = len(folders) - NAMED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _rows(top: Path, folder: Path) -> tuple[list[ListedImage], dict[str, list[Path]]]:
    """Return the images of all classes, and for each class the files that look like images but are not read."""
    rows: list[ListedImage] = []
    unread: dict[str, list[Path]] = {}
    for inside in class_folders(folder):
        found = sort_files(inside)
        rows += [(path.relative_to(top).as_posix(), path, inside.name) for path in found.images]
        if found.unread:
            unread[inside.name] = found.unread
    return rows, unread


def _by_suffix(files: Iterable[Path]) -> str:
    """Count files by suffix: "30 .heic, 2 .svg"."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(path.suffix.lower() for path in files).most_common())


def _warn_of_unread(folder: Path, files: Sequence[Path]) -> None:
    if files:
        warnings.warn(
            f"images of a kind that is not read lie in the class folders of {folder} and were passed over: "
            f"{_by_suffix(files)}; convert them to PNG or JPEG",
            stacklevel=3,
        )


def _warn_of_unread_folders(folder: Path, parts: Parts) -> None:
    unread = folders_not_read(folder, parts)
    flat = [path for path in unread if part_of(path.name) in TEST_PARTS and not _holds_classes(path)]
    if flat and parts.test is None:
        warnings.warn(
            f"{flat[0]} holds images and no class folders, so there are no test images; what they are is not known",
            stacklevel=3,
        )
    beside = [path for path in unread if part_of(path.name) is None]
    if beside:
        warnings.warn(
            f"{parts.train} is taken for the training images; {_listed(beside)} beside it "
            f"{'is' if len(beside) == 1 else 'are'} not read",
            stacklevel=3,
        )


def from_class_names(
    name: str,
    train_rows: Sequence[ListedImage],
    test_rows: Sequence[ListedImage],
    size: int | None,
    skipped: tuple[str, ...] = (),
    more_names: Iterable[str] = (),
) -> Pair:
    """Number the classes of training and test rows (id, file, class name), then read the files as `to_examples` does.

    Args:
        name: of the data, for messages.
        train_rows: training images.
        test_rows: test images; may be empty.
        size: side of the images in pixels; None for what suits them.
        skipped: files that were set aside before, each "path: reason".
        more_names: names of classes besides those of the training rows.

    Shape: images (N, 1 or 3, size, size) uint8.

    Raises:
        DataError: a test class is not a class of training, a class name is not UTF-8, or no training or no test image
            can be read.
        LostClassError: not one training image of a class can be read.
    """
    names = sort_names({label for _, _, label in train_rows} | set(more_names))
    not_utf8 = [name for name in names if readable(name) != name]
    if not_utf8:
        raise DataError(f"the name of class {readable(not_utf8[0])} of {name!r} is not UTF-8; rename its folder.")
    unknown = sorted({label for _, _, label in test_rows} - set(names))
    if unknown:
        raise DataError(f"test images of {name!r} have class {unknown[0]!r}, which no training image has.")
    number = {label: i for i, label in enumerate(names)}
    train, test = (
        [Entry(row_id, path, number[label]) for row_id, path, label in rows] for rows in (train_rows, test_rows)
    )
    pair = to_examples(name, names, train, test, size, skipped=skipped, error=DataError)
    lost = _lost_class(train, pair[0], pair[0].skipped[len(skipped) :])
    if lost is not None:
        raise LostClassError(lost, pair)
    return pair


def _lost_class(entries: Sequence[Entry], train: Examples, skipped: Sequence[str]) -> str | None:
    """Say which class of the training `entries` has no image left in `train`; None if each has one.

    `skipped` are the files that could not be read, in the order of the entries; those of test images follow.
    """
    kept, left = set(train.ids), set(train.labels.tolist())
    failed = [entry for entry in entries if entry.id not in kept]
    for entry, why in zip(failed, skipped, strict=False):
        if entry.label not in left:
            count = sum(other.label == entry.label for other in entries)
            what = "its one image cannot" if count == 1 else f"none of its {count} images can"
            return (
                f"class {train.class_names[entry.label]!r} of {train.name!r} would be lost: {what} be read; the "
                f"first: {why}; repair them, or leave the class out."
            )
    return None


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class names: as numbers if every one is a whole number, else as text."""
    found = sorted(names)
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in found):
        found.sort(key=int)
    return tuple(found)
