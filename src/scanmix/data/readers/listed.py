"""What the readers of published file lists share: lines of a name and a number, many files, counts that are known."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from scanmix.config import UnexpectedData, UserError
from scanmix.files import reading


def top_folder(name: str, root: str | Path | None, how: str) -> Path:
    """Return the folder of a data set: `root`, or $SCANMIX_DATA/<name> or $SCANMIX_DATA.

    Raises:
        UserError: neither is given, or there is no such folder; `how` says how to get the data.
    """
    given = root if root is not None else os.environ.get("SCANMIX_DATA")
    if given is None:
        raise UserError(f"{name} needs root= (or SCANMIX_DATA), its folder. {how}")
    top = Path(given).expanduser().absolute()
    if root is None and (top / name).is_dir():
        top = top / name
    if not top.is_dir():
        raise UserError(f"{name}: there is no folder {top}. {how}")
    return top


def require(name: str, top: Path, wanted: Sequence[str], how: str) -> None:
    """Check that everything a layout consists of is there.

    Raises:
        UserError: lists all that is missing below `top`.
    """
    missing = [path for path in wanted if not (top / path).exists()]
    if missing:
        raise UserError(f"{name}: {top} lacks {', '.join(missing)}. {how}")


def read_list(path: Path, num_classes: int | None) -> list[tuple[str, int]]:
    """Read lines of a file name and a label, with blanks between; an empty line is none.

    With `num_classes` None any label from 0 on will do. A file that is named again keeps its first label.

    Raises:
        UserError: a line is something else; says which.
    """
    found: dict[str, int] = {}
    again: list[int] = []
    for number, line in enumerate(_lines(path), start=1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name.strip() or not is_label(label):
            raise UserError(f"{path}, line {number}: a file name and a label are expected, not {line.strip()!r}")
        if num_classes is not None and int(label) >= num_classes:
            raise UserError(f"{path}, line {number}: label {label} is outside 0..{num_classes - 1}")
        if name.strip() in found:
            again.append(number)
        else:
            found[name.strip()] = int(label)
    if again:
        tell(f"{len(again)} lines of {path} name a file that is named before, first line {again[0]}; they are left out")
    return list(found.items())


def is_label(text: str) -> bool:
    """Whether a text is a whole number from 0 on that may be a label."""
    return text.isascii() and text.isdigit() and len(text) < 10


def read_names(path: Path) -> list[str]:
    """Read one name a line, empty lines left out.

    Raises:
        UserError: it cannot be read.
    """
    return [line.strip() for line in _lines(path) if line.strip()]


def warn_unless(what: str, found: float, expected: float, within: float = 0) -> None:
    """Warn where a number is not the published one: the files may be another release, or not all of them."""
    if abs(found - expected) > within:
        tell(f"{what}: {found:,} here, {expected:,} published")


def tell(text: str) -> None:
    """Warn of a published data set that is not quite as it was published."""
    warnings.warn(text, UnexpectedData, stacklevel=2)


def _lines(path: Path) -> list[str]:
    with reading(path, "get it again"):
        return path.read_text(encoding="utf-8").splitlines()
