"""Checks of the layout of an image folder: files and folders that are not read, or not as probably meant."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from scanmix.data.decoding import SUFFIXES, Found, sort_files
from scanmix.data.readers.folder import class_folders, find_parts, folders_not_read, part_of
from scanmix.doctor.checks import Finding, Level, number


def check_layout(folder: Path) -> list[Finding]:
    """Find what `read_folder` leaves out of an existing folder or may misunderstand."""
    parts = find_parts(folder)
    read = [parts.train] if parts.test is None else [parts.train, parts.test]
    found = [finding for part in read for finding in _check_part(folder, part)]
    if parts.train == folder:
        splits = tuple(path.name for path in class_folders(folder) if part_of(path.name) is not None)
        fix = "lay the images out as train/CLASS/... and test/CLASS/..."
        return found + _some("warning", "folder named like a part of the data, taken for a class", splits, fix)
    beside = tuple(path.name for path in folders_not_read(folder, parts))
    fix = f"move the images into {' or '.join(part.name for part in read)}, if they are to be used"
    return found + _some("warning", "folder of images not read", beside, fix)


def other_files(folder: Path) -> dict[str, int]:
    """Return counts of visible files in class folders that are not images, by suffix, the largest count first."""
    parts = find_parts(folder)
    read = [parts.train] if parts.test is None else [parts.train, parts.test]
    files = [path for part in read for inside in class_folders(part) for path in sort_files(inside).others]
    return dict(Counter(path.suffix.lower() or "without a suffix" for path in files).most_common())


def _check_part(top: Path, part: Path) -> list[Finding]:
    """Find problems of a folder whose sub-folders are classes."""
    beside = sorted(path for path in part.iterdir() if path.is_file() and not path.name.startswith("."))
    loose = _names(top, [path for path in beside if path.suffix.lower() in SUFFIXES])
    tables = _names(top, [path for path in beside if path.suffix.lower() in (".csv", ".parquet")])
    classes = class_folders(part)
    files = {path: sort_files(path) for path in classes}
    empty = _names(top, [path for path in classes if not files[path].images])
    unread = [path for found in files.values() for path in found.unread]
    found = _some("warning", "image beside the class folders, not read", loose, "move into the folder of its class")
    fix = "if it names the labels, give it as DATA instead of the folder"
    found += _some("note", "table beside the class folders, not read", tables, fix)
    found += _some("warning", "folder without an image, no class in training", empty, "fill or remove it")
    fix = "convert to PNG or JPEG"
    found += _some("warning", "image of a kind that is not read", _names(top, unread), fix)
    return found + _check_nested(top, files)


def _check_nested(top: Path, found: dict[Path, Found]) -> list[Finding]:
    """Find sub-folders of class folders; if there is only one class folder, they may be the classes."""
    inner: dict[Path, int] = {}
    for inside, files in found.items():
        for file in files.images:
            if file.parent != inside:
                deep = inside / file.relative_to(inside).parts[0]
                inner[deep] = inner.get(deep, 0) + 1
    if not inner:
        return []
    where = tuple(f"{name} ({count})" for name, count in zip(_names(top, list(inner)), inner.values(), strict=True))
    filled = [path for path, files in found.items() if files.images]
    if len(filled) == 1 and len(inner) > 1:
        fix = f"if these are the classes, give the folder that holds them: scanmix doctor {filled[0]}"
        return [Finding("fault", "one class folder, and folders in it", where, fix)]
    fix = "nothing, if each belongs to the class above it; else move the folders one level up"
    return [Finding("warning", f"{number(len(inner), 'folder')} inside class folders", where, fix)]


def _names(top: Path, paths: list[Path]) -> tuple[str, ...]:
    """Return paths relative to `top`."""
    return tuple(path.relative_to(top).as_posix() for path in paths)


def _some(level: Level, what: str, where: tuple[str, ...], fix: str) -> list[Finding]:
    """Return a finding if `where` is not empty; `what` begins with the noun that is counted."""
    noun, _, rest = what.partition(" ")
    return [Finding(level, f"{number(len(where), noun)} {rest}", where, fix)] if where else []
