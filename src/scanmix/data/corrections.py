"""Labels that a person corrected, read from a CSV and applied to examples.

Columns: `label`; `id` or `path`, which name the example; and optionally `decision`: `exclude` leaves the example out,
and `keep`, `accept` and `relabel` say that a person has checked the label; or `trusted`, see `decisions.read_trusted`.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scanmix.config import UserError, check_type, file_path, in_short
from scanmix.data.decisions import read_decided
from scanmix.data.examples import DECIDED, JSON, NOT_KNOWN, Examples, Excluded
from scanmix.files import check_regular
from scanmix.files.cells import csv_text

EXCLUDE = "exclude"
NAMED = 10
"""Unknown names that an error lists."""


class _Row(NamedTuple):
    """A row of the CSV: its cells by column, and its decision in the words of `read_decided`."""

    cells: dict[str, str]
    decision: str


def apply_corrections(examples: Examples, path: str | Path, sha256: str | None = None) -> Examples:
    """Return the examples with the labels of a CSV such as `scanmix review` writes, without the excluded examples.

    Rows are matched by `id` if the file has that column, else by `path`. Examples that the file does not name keep
    their labels, and examples that it excludes may be missing already. `true_labels` stay as they are; the old labels
    are not taken for true ones. `Examples.decided`, `before` and `excluded` record what was decided.

    Args:
        examples: the examples to correct.
        path: the CSV.
        sha256: hash of the file when it was first used; the file is refused if it has changed since.

    Raises:
        UserError: the file cannot be read or has changed, names an example twice, or names an example or a class that
            does not exist.
    """
    check_type("examples", examples, Examples, "Examples, as the parts of the pair that scanmix.load returns")
    path = file_path("path", path).expanduser().absolute()
    rows, found = _read(path)
    if sha256 not in (None, found):
        raise UserError(f"{path} is not what it was when the run began; bring it back, or train anew with --labels")
    place, key = _places(examples, path, rows[0].cells if rows else {})
    number = {name: label for label, name in enumerate(examples.class_names)}
    used = [row for row in rows if row.decision != EXCLUDE]
    _refuse(path, key, {row.cells[key] for row in used} - place.keys(), f"not in {examples.name!r}")
    _refuse(path, "label", {row.cells["label"] for row in used} - number.keys(), f"no class of {examples.name!r}")
    files = {name: i for i, name in enumerate(examples.paths or ())}
    found_at = [place.get(row.cells[key], _by_file(row, files)) for row in rows]
    gone = [row for row, i in zip(rows, found_at, strict=True) if i is None]
    rows = [row for row, i in zip(rows, found_at, strict=True) if i is not None]
    named = [i for i in found_at if i is not None]
    if len(set(named)) < len(named):
        twice = examples.ids[Counter(named).most_common(1)[0][0]]
        raise UserError(f"{path} has more than one row for {twice!r}; keep one")
    labels, keep = examples.labels.clone(), torch.ones(len(examples), dtype=torch.bool)
    decided = torch.zeros(len(examples), dtype=torch.int8) if examples.decided is None else examples.decided.clone()
    excluded = []
    for row, i in zip(rows, named, strict=True):
        if row.decision == EXCLUDE:
            keep[i] = False
            where = "" if examples.paths is None else examples.paths[i]
            excluded.append((examples.ids[i], where, examples.class_names[int(examples.labels[i])]))
            continue
        label = number[row.cells["label"]]
        if row.decision or label != labels[i]:  # an empty decision beside an unchanged label undoes nothing
            decided[i] = DECIDED.index(row.decision) if row.decision in DECIDED else 0
        labels[i] = label
    excluded += [_left_out(row.cells, key) for row in gone]
    step: JSON = {"corrections": {"path": str(path), "sha256": found}}
    before = _before_decisions(examples)
    return examples.corrected(labels, keep, decided=decided, before=before, excluded=excluded, step=step)


def _before_decisions(examples: Examples) -> Tensor:
    """Return the label before the first decision about it, `NOT_KNOWN` where an earlier one has left no trace.

    Shape: -> (N,) int64.
    """
    if examples.decided is None:
        return examples.labels
    earlier = torch.full_like(examples.labels, NOT_KNOWN) if examples.before is None else examples.before
    return torch.where(examples.decided > 0, earlier, examples.labels)


def _by_file(row: _Row, files: Mapping[str, int]) -> int | None:
    """Position of an excluded example by its path: it must stay out even if its id is another by now."""
    return files.get(row.cells.get("path", "")) if row.decision == EXCLUDE else None


def _left_out(cells: Mapping[str, str], key: str) -> Excluded:
    """What the CSV says of an excluded example that is missing already."""
    return cells[key], cells.get("path", ""), cells.get("given") or cells["label"]


def _read(path: Path) -> tuple[list[_Row], str]:
    """Return the rows and the SHA-256 of the file."""
    try:
        check_regular(path)
        content = path.read_bytes()
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except OSError as error:
        raise UserError(f"the labels {path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the labels {path} are no UTF-8 CSV: {error}") from None
    columns = lines[0] if lines else []
    if "label" not in columns or not {*columns} & {"id", "path"}:
        has = ", ".join(sorted(columns)) or "none"
        raise UserError(f"{path} needs the columns label, and id or path; it has {has}")
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise UserError(f"{path} has the column {twice[0]!r} twice; keep one")
    rows = []
    for number, line in enumerate(lines[1:], start=1):
        if not line:
            continue
        if len(line) != len(columns):
            raise UserError(
                f"row {number} of {path} has {len(line)} cells where the first line has {len(columns)}; "
                "put cells with commas, quotes or line breaks into quotes, and complete what is cut off"
            )
        cells = dict(zip(columns, map(csv_text, line), strict=True))
        rows.append(_Row(cells, read_decided(cells.get("decision", ""), cells.get("trusted", ""), path, number)))
    return rows, hashlib.sha256(content).hexdigest()


def _places(examples: Examples, path: Path, row: Mapping[str, str]) -> tuple[dict[str, int], str]:
    """Return the position of each example by its name in the file, and the column with that name."""
    place = {name: i for i, name in enumerate(examples.ids)}
    if "id" in row:
        return place, "id"
    paths = {name: i for i, name in enumerate(examples.paths or ())}
    beside = {_below(name, path.parent): i for name, i in paths.items()}
    return beside | paths | place, "path"


def _below(name: str, folder: Path) -> str:
    """Return a path relative to the folder of the CSV if it lies below that folder, else as it is."""
    full = Path(name)
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else name


def _refuse(path: Path, column: str, unknown: Iterable[str], why: str) -> None:
    names = sorted(unknown)
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        listed = ", ".join(map(in_short, names[:NAMED]))
        raise UserError(
            f"{path} has the {column} {listed}{more}, {why}; exclude it, correct the file or give its own data"
        )
