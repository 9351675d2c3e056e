"""Reading of published file lists: finding their folder, lines of name and label, and checks of published counts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from scanmix.config import UnexpectedData, UserError
from scanmix.files import reading


def top_folder(name: str, root: str | Path | None, how: str) -> Path:
    """Return the folder of a data set: `root`, else $SCANMIX_DATA/<name> or $SCANMIX_DATA.

    Raises:
        UserError: neither is given, or the folder does not exist; the message ends with `how`, how to get the data.
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
    """Check that all files and folders of a layout exist.

    Raises:
        UserError: something is missing; lists everything that is missing in `top`.
    """
    missing = [path for path in wanted if not (top / path).exists()]
    if missing:
        raise UserError(f"{name}: {top} lacks {', '.join(missing)}. {how}")


def read_list(path: Path, num_classes: int | None) -> list[tuple[str, int]]:
    """Read lines of a file name and a label, separated by a space; empty lines are skipped.

    Labels must be below `num_classes` if it is given. A file that is named more than once keeps its first label.

    Raises:
        UserError: a line is something else; says which line.
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
    """Whether a text is a whole number of at most nine digits, 0 or above, as labels are."""
    return text.isascii() and text.isdigit() and len(text) < 10


def read_names(path: Path) -> list[str]:
    """Read one name a line, without empty lines.

    Raises:
        UserError: the file cannot be read.
    """
    return [line.strip() for line in _lines(path) if line.strip()]


def warn_unless(what: str, found: float, expected: float, within: float = 0) -> None:
    """Warn if a number is not the published one: the files may be of another release, or some may be missing."""
    if abs(found - expected) > within:
        tell(f"{what}: {found:,} here, {expected:,} published")


def tell(text: str) -> None:
    """Warn that a published data set differs from what was published."""
    warnings.warn(text, UnexpectedData, stacklevel=2)


def _lines(path: Path) -> list[str]:
    with reading(path, "get it again"):
        return path.read_text(encoding="utf-8").splitlines()
