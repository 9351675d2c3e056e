"""What lies in a folder of images where it is not, or not as meant, read."""

from __future__ import annotations

from pathlib import Path

from scanmix.data.checks import Finding, Level, number
from scanmix.data.decoding import SUFFIXES, find_pictures
from scanmix.data.readers.folder import TEST_PARTS, class_folders, find_parts

OTHER_IMAGES = frozenset(
    (".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".heic", ".heif", ".jxl", ".nef", ".npy", ".psd", ".raw", ".svg")
)
"""Kinds of image files that are not read."""
SPLIT_NAMES = frozenset(("train", "training", *TEST_PARTS))


def check_layout(folder: Path) -> list[Finding]:
    """Find what `read_folder` leaves out or may take for something else in an existing folder."""
    train, test = find_parts(folder)
    parts = [train] if test is None else [train, test]
    found = [finding for part in parts for finding in _check_part(folder, part)]
    if train == folder:
        splits = tuple(path.name for path in class_folders(folder) if path.name.lower() in SPLIT_NAMES)
        fix = "lay the images out as train/CLASS/... and test/CLASS/..."
        return found + _some("warning", "folder named like a part of the data, taken for a class", splits, fix)
    beside = tuple(path.name for path in class_folders(folder) if path not in parts and find_pictures(path))
    fix = f"move the images into {' or '.join(part.name for part in parts)}, if they are to be used"
    return found + _some("warning", "folder of images not read", beside, fix)


def _check_part(top: Path, part: Path) -> list[Finding]:
    """Find what is odd in a folder whose sub-folders are classes."""
    beside = sorted(path for path in part.iterdir() if path.is_file() and not path.name.startswith("."))
    loose = _names(top, [path for path in beside if path.suffix.lower() in SUFFIXES])
    tables = _names(top, [path for path in beside if path.suffix.lower() in (".csv", ".parquet")])
    classes = class_folders(part)
    pictures = {path: find_pictures(path) for path in classes}
    empty = _names(top, [path for path in classes if not pictures[path]])
    files = [path for inside in classes for path in inside.rglob("*") if path.suffix.lower() in OTHER_IMAGES]
    found = _some("warning", "image beside the class folders, not read", loose, "move into the folder of its class")
    fix = "if it names the labels, give it as DATA instead of the folder"
    found += _some("note", "table beside the class folders, not read", tables, fix)
    found += _some("warning", "folder without an image, no class in training", empty, "fill or remove it")
    fix = "convert to PNG or JPEG"
    found += _some("warning", "image of a kind that is not read", _names(top, sorted(files)), fix)
    return found + _check_nested(top, pictures)


def _check_nested(top: Path, pictures: dict[Path, list[Path]]) -> list[Finding]:
    """Find sub-folders of class folders; where there is one class folder alone, these may be the classes."""
    inner: dict[Path, int] = {}
    for inside, files in pictures.items():
        for file in files:
            if file.parent != inside:
                deep = inside / file.relative_to(inside).parts[0]
                inner[deep] = inner.get(deep, 0) + 1
    if not inner:
        return []
    where = tuple(f"{name} ({count})" for name, count in zip(_names(top, list(inner)), inner.values(), strict=True))
    filled = [path for path, files in pictures.items() if files]
    if len(filled) == 1 and len(inner) > 1:
        fix = f"if these are the classes, give the folder that holds them: scanmix doctor {filled[0]}"
        return [Finding("fault", "one class folder, and folders in it", where, fix)]
    fix = "nothing, if each belongs to the class above it; else move the folders one level up"
    return [Finding("warning", f"{number(len(inner), 'folder')} inside class folders", where, fix)]


def _names(top: Path, paths: list[Path]) -> tuple[str, ...]:
    return tuple(path.relative_to(top).as_posix() for path in paths)


def _some(level: Level, what: str, where: tuple[str, ...], fix: str) -> list[Finding]:
    """The finding, if it was found anywhere; `what` begins with the noun that is counted."""
    noun, _, rest = what.partition(" ")
    return [Finding(level, f"{number(len(where), noun)} {rest}", where, fix)] if where else []
