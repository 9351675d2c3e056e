"""`scanmix predict`: classes and probabilities of image files, as a CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanmix.cli.options import Device, RunFolder
from scanmix.cli.shell import check_run, check_writable, show_skipped
from scanmix.config import UserError

if TYPE_CHECKING:
    from scanmix.checkpoint import Model

PREDICTIONS = Path("predictions.csv")
CHUNK = 4096
"""Images decoded and classified at a time: memory does not grow with their number."""


def predict(
    run: RunFolder,
    paths: Annotated[
        list[Path], typer.Argument(help="Image files, folders (with all below them), .csv tables with a column path.")
    ],
    out: Annotated[Path, typer.Option(help="CSV to write: path, class, probability.")] = PREDICTIONS,
    top: Annotated[int, typer.Option(min=1, help="How many classes to write for each image.")] = 1,
    device: Device = "auto",
) -> None:
    """Classify images, into a CSV.

    Unreadable files are listed and skipped.
    """
    check_run(run)
    check_writable(out)
    files = _find_files(paths)
    from scanmix.checkpoint import load_model
    from scanmix.engine import find_device

    model = load_model(run, find_device(device))
    if top > len(model.class_names):
        raise UserError(f"--top {top} is more than the {len(model.class_names)} classes of {run}")
    if model.kind == "vector":
        raise UserError(f"{run} takes vectors, not files: scanmix.open_run({str(run)!r}).predict_proba(vectors)")
    if model.size[0] != model.size[1]:
        raise UserError(f"{run} takes images of {model.size[0]}x{model.size[1]} pixels; files are cut to squares")
    columns = ["path", "class", "probability"]
    columns += [f"{column}_{place}" for place in range(2, top + 1) for column in ("class", "probability")]
    skipped: list[str] = []
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with aside.open("w", newline="", encoding="utf-8") as handle:
            table = csv.writer(handle)
            table.writerow(columns)
            for row in _classified(model, files, top, skipped):
                table.writerow(row)
        show_skipped(skipped)
        if len(skipped) == len(files):
            raise UserError(f"not one of {len(files)} files could be read as an image; nothing was written")
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    note = f"; {len(skipped)} could not be read and were skipped" if skipped else ""
    typer.echo(f"Wrote {out}: {len(files) - len(skipped)} of {len(files)} images{note}.")


def _classified(model: Model, files: Sequence[Path], top: int, skipped: list[str]) -> Iterator[list[str]]:
    """Yield a row for each image, likeliest class first; what cannot be read is added to `skipped`."""
    import numpy as np
    import torch

    from scanmix.data.readers.pictures import decode_pictures

    for first in range(0, len(files), CHUNK):
        chunk = files[first : first + CHUNK]
        outcomes = list(zip(chunk, decode_pictures(chunk, model.size[0], model.channels), strict=True))
        skipped += [f"{file}: {reason}" for file, reason in outcomes if isinstance(reason, str)]
        read = [(file, image) for file, image in outcomes if not isinstance(image, str)]
        if not read:
            continue
        images = torch.from_numpy(np.stack([image for _, image in read]))
        for (file, _), shares in zip(read, model.predict_proba(images), strict=True):
            best = np.argsort(-shares, kind="stable")[:top]
            yield [str(file), *(cell for c in best for cell in (model.class_names[c], f"{shares[c]:.6f}"))]


def _find_files(paths: Sequence[Path]) -> list[Path]:
    """Files named, found in folders or listed in tables; each once, in the order given."""
    from scanmix.data.readers.pictures import find_pictures

    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = find_pictures(path)
            if not inside:
                raise UserError(f"{path} holds no image files")
            found |= dict.fromkeys(inside)
        elif not path.exists():
            raise UserError(f"{path}: no such file or folder")
        elif path.suffix.lower() == ".csv":
            found |= dict.fromkeys(_listed(path))
        else:
            found[path] = None
    return list(found)


def _listed(table: Path) -> list[Path]:
    """Paths in the column `path` of a CSV, relative to its folder."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True)
            columns = list(reader.fieldnames or ())
            cells = [(row.get("path") or "").strip() for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as a UTF-8 CSV table: {error}") from None
    if "path" not in columns:
        raise UserError(f"{table} has no column 'path'; it has {', '.join(columns) or 'none'}")
    return [table.parent / cell for cell in cells if cell]
