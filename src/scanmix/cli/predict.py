"""`scanmix predict`: classes and probabilities of image files, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.inputs import find_files, load_labeled
from scanmix.cli.options import Device
from scanmix.cli.shell import check_run, check_writable, percent, show_skipped
from scanmix.config import UserError

if TYPE_CHECKING:
    from scanmix.data.examples import Examples
    from scanmix.data.records import Row
    from scanmix.export.classifier import Classifier

PREDICTIONS = Path("predictions.csv")
CHUNK = 4096
"""Images decoded and classified at a time: memory does not grow with their number."""


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or what `scanmix export` made of one.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders (with all below them), .csv or .parquet tables with a column path; "
            "- reads paths from standard input, one a line."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Table to write, .csv or .parquet: path, class, probability.")
    ] = PREDICTIONS,
    top: Annotated[int, typer.Option(min=1, help="How many classes to write for each image.")] = 1,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labeled images that were NOT trained on, 100 or more: adjust how sure the probabilities are. Some "
            "labels may be wrong, if at random. Which class is likeliest does not change.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Classify images, into a CSV or Parquet table.

    Unreadable files are listed and skipped.
    """
    check_run(run)
    check_writable(out)
    files = find_files(paths)
    from scanmix.data.records import new_table
    from scanmix.export.classifier import load_classifier

    model = load_classifier(run, device)
    if top > len(model.class_names):
        raise UserError(f"--top {top} is more than the {len(model.class_names)} classes of {run}")
    if model.size == (1, 1):
        raise UserError(f"{run} takes vectors, not files: scanmix.open_run({str(run)!r}).predict_proba(vectors)")
    if model.size[0] != model.size[1]:
        raise UserError(f"{run} takes images of {model.size[0]}x{model.size[1]} pixels; files are cut to squares")
    temperature = 1.0 if calibrate is None else _find_temperature(model, run, calibrate)
    columns: dict[str, type[str] | type[float]] = {"path": str, "class": str, "probability": float}
    for place in range(2, top + 1):
        columns |= {f"class_{place}": str, f"probability_{place}": float}
    skipped: list[str] = []
    with new_table(out, columns) as write:
        for rows in _classified(model, files, top, temperature, skipped):
            write(rows)
        show_skipped(skipped)
        if len(skipped) == len(files):
            raise UserError(f"not one of {len(files)} files could be read as an image; nothing was written")
    note = f"; {len(skipped)} could not be read and were skipped" if skipped else ""
    typer.echo(f"Wrote {out}: {len(files) - len(skipped)} of {len(files)} images{note}.")


def _classified(
    model: Classifier, files: Sequence[Path], top: int, temperature: float, skipped: list[str]
) -> Iterator[list[Row]]:
    """Yield a row for each image, likeliest class first, in chunks; what cannot be read is added to `skipped`."""
    import numpy as np

    from scanmix.calibration import temper
    from scanmix.data.decoding import decode_pictures

    for first in range(0, len(files), CHUNK):
        chunk = files[first : first + CHUNK]
        outcomes = list(zip(chunk, decode_pictures(chunk, model.size[0], model.channels), strict=True))
        skipped += [f"{file}: {reason}" for file, reason in outcomes if isinstance(reason, str)]
        read = [(file, image) for file, image in outcomes if not isinstance(image, str)]
        if not read:
            continue
        probs = temper(model.predict_proba(np.stack([image for _, image in read])), temperature)
        best = np.argsort(-probs, axis=1, kind="stable")[:, :top]
        yield [
            [str(file), *(cell for c in likeliest for cell in (model.class_names[c], float(shares[c])))]
            for (file, _), shares, likeliest in zip(read, probs, best, strict=True)
        ]


def _find_temperature(model: Classifier, run: Path, data: str) -> float:
    """Fit a temperature to labeled images and say how it went."""
    from scanmix.calibration import fit_temperature

    examples = load_labeled(model, data)
    _refuse_training_images(run, examples, data)
    found = fit_temperature(model.predict_proba(examples.images.numpy()), examples.labels.numpy())
    typer.echo(
        f"Temperature {found.temperature:.2f} (95 % interval {found.low:.2f} to {found.high:.2f}), "
        f"from {len(examples)} labels of which {percent(found.noise_rate)} seem wrong; "
        f"loss {found.loss_before:.3f} before, {found.loss_after:.3f} after."
    )
    return found.temperature


def _refuse_training_images(run: Path, examples: Examples, data: str) -> None:
    """What was learned by heart says nothing of new images. An exported folder does not know what it learned from."""
    if not (run / "run.toml").is_file():
        return
    from scanmix.runs import open_run

    source = open_run(run).settings.source
    if source is not None and _origin(source["train"]) == _origin(examples.source):
        raise UserError(f"{data}: {run} was trained on these images; calibrate on labeled images it has not seen")


def _origin(source: Any) -> tuple[str, str]:
    return source["load"]["source"], source["split"]
