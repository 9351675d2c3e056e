"""Labels that a person corrected, read from a CSV and laid over examples.

Columns: `label`, and `id` or `path` to say whose; `decision` where there is one: `exclude` leaves the row out.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from scanmix.config import UserError
from scanmix.data.examples import Examples

NAMED = 10
"""Unknown names that an error lists."""


def apply_corrections(examples: Examples, path: str | Path, sha256: str | None = None) -> Examples:
    """Return the examples with the labels of a CSV such as `scanmix review` writes, excluded rows left out.

    Rows are found by `id` where the file has that column, else by `path`. Examples that it does not name keep their
    labels, and those that it excludes may be gone already. The old labels become the true ones of nobody: what was
    true before is still all that is known.

    Args:
        examples: what to correct.
        path: the CSV.
        sha256: of the file when it was first used; one that has changed since is refused.

    Raises:
        UserError: the file cannot be read or has changed, or relies on an example or a class that is not there.
    """
    path = Path(path).expanduser().absolute()
    rows, found = _read(path)
    if sha256 not in (None, found):
        raise UserError(f"{path} is not what it was when the run began; bring it back, or train anew with --labels")
    place, key = _places(examples, path, rows[0] if rows else {})
    number = {name: label for label, name in enumerate(examples.class_names)}
    used = [row for row in rows if row.get("decision") != "exclude"]
    _refuse(path, key, {row[key] for row in used} - place.keys(), f"not in {examples.name!r}")
    _refuse(path, "label", {row["label"] for row in used} - number.keys(), f"no class of {examples.name!r}")
    rows = [row for row in rows if row[key] in place]  # what is excluded may be gone
    named = [place[row[key]] for row in rows]
    if len(set(named)) < len(named):
        twice = examples.ids[Counter(named).most_common(1)[0][0]]
        raise UserError(f"{path} has more than one row for {twice!r}; keep one")
    labels, keep = examples.labels.clone(), torch.ones(len(examples), dtype=torch.bool)
    for row, i in zip(rows, named, strict=True):
        if row.get("decision") == "exclude":
            keep[i] = False
        else:
            labels[i] = number[row["label"]]
    return examples.corrected(labels, keep, step={"corrections": {"path": str(path), "sha256": found}})


def _read(path: Path) -> tuple[list[dict[str, str]], str]:
    """Rows by column, and the hash of the file."""
    try:
        content = path.read_bytes()
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = [{name: cell or "" for name, cell in row.items() if name} for row in table]
    except OSError as error:
        raise UserError(f"the labels {path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the labels {path} are no UTF-8 CSV: {error}") from None
    columns = set(table.fieldnames or ())
    if "label" not in columns or not columns & {"id", "path"}:
        raise UserError(
            f"{path} needs the columns label, and id or path; it has {', '.join(sorted(columns)) or 'none'}"
        )
    return rows, hashlib.sha256(content).hexdigest()


def _places(examples: Examples, path: Path, row: Mapping[str, str]) -> tuple[dict[str, int], str]:
    """Position of each example by what the file calls it, and the column that does."""
    place = {name: i for i, name in enumerate(examples.ids)}
    if "id" in row:
        return place, "id"
    paths = {name: i for i, name in enumerate(examples.paths or ())}
    beside = {_below(name, path.parent): i for name, i in paths.items()}
    return beside | paths | place, "path"


def _below(name: str, folder: Path) -> str:
    """A path as seen from the folder of the file, where it lies below it."""
    full = Path(name)
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else name


def _refuse(path: Path, column: str, unknown: Iterable[str], why: str) -> None:
    names = sorted(unknown)
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        listed = ", ".join(repr(name) for name in names[:NAMED])
        raise UserError(
            f"{path} has the {column} {listed}{more}, {why}; exclude it, correct the file or give its own data"
        )
