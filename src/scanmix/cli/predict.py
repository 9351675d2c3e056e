"""`scanmix predict`: classes and probabilities of images or vectors, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.inputs import (
    STDIN,
    Chunk,
    check_there,
    find_files,
    image_chunks,
    is_table,
    load_labeled,
    read_vector_files,
    vector_chunks,
)
from scanmix.cli.options import Device, Encoder
from scanmix.cli.shell import Written, check_run, check_writable, has_columns, say, show_skipped
from scanmix.config import UserError, percent
from scanmix.data.sources import check_source
from scanmix.progress import progress

if TYPE_CHECKING:
    import numpy as np

    from scanmix.data.examples import Examples
    from scanmix.export.classifier import Classifier
    from scanmix.files.tables import Row

STEP = 512
"""Inputs between two updates of the bar: those of one forward pass."""
PREDICTIONS = Path("predictions.csv")
TABLE = Written("a table of predictions", has_columns(("path", "class", "probability"), ("id", "class", "probability")))


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or what `scanmix export` made of one.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders (with all below them), .csv or .parquet tables with a column path; "
            "- reads paths from standard input, one a line. For a run on vectors: .npy files, one vector a row."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Table to write: path (of vectors, id), class, probability; .csv, .parquet or, for a script, .jsonl."
        ),
    ] = PREDICTIONS,
    top: Annotated[int, typer.Option(min=1, help="How many classes to write for each image.")] = 1,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labeled images or vectors that were NOT trained on, 100 or more: adjust how sure the probabilities "
            "are. Some labels may be wrong, if at random. Which class is likeliest does not change.",
        ),
    ] = None,
    device: Device = "auto",
    encoder: Encoder = None,
    root: Annotated[
        Path | None, typer.Option(help="What the paths of a table are relative to; by default its folder.")
    ] = None,
) -> None:
    """Classify images or feature vectors, into a table.

    What cannot be read is listed and skipped.
    """
    check_run(run)
    if root is not None and not any(is_table(path) for path in (*paths, calibrate)):
        raise UserError("--root is what the paths of a table are relative to; no .csv or .parquet is named")
    check_writable(out, TABLE, inputs=[*paths, calibrate], run=run)
    check_there(path for path in paths if path != STDIN)
    if calibrate is not None:
        check_source(calibrate)
    from scanmix.export.loading import load_classifier

    model = load_classifier(run, device, encoder)
    if top > len(model.class_names):
        raise UserError(f"--top {top} is more than the {len(model.class_names)} classes of {run}")
    chunks = _chunks(model, run, paths, root)
    temperature = 1.0 if calibrate is None else _find_temperature(model, run, calibrate, root)
    skipped, total = _write(out, model, run, chunks, top, temperature)
    note = f"; {skipped} could not be read and were skipped" if skipped else ""
    say(f"Wrote {out}: {total - skipped} of {total} {model.kind}s{note}.")


def _chunks(model: Classifier, run: Path, paths: Sequence[Path], root: Path | None) -> Iterator[Chunk]:
    """Return what the paths name, as the model takes it."""
    if model.kind == "vector":
        if root is not None:
            raise UserError(f"--root is for tables of paths; {run} takes vectors")
        return vector_chunks(read_vector_files(paths, run, model.channels))
    files = find_files(paths, root)
    if model.size[0] != model.size[1]:
        raise UserError(f"{run} takes images of {model.size[0]}x{model.size[1]} pixels; files are cut to squares")
    return image_chunks(files, model)


def _write(
    out: Path, model: Classifier, run: Path, chunks: Iterable[Chunk], top: int, temperature: float
) -> tuple[int, int]:
    """Write the table and list what was skipped; return the numbers of skipped and of all inputs.

    Args:
        out: the table.
        model: what predicts.
        run: its folder, for messages.
        chunks: the inputs.
        top: number of classes for each input.
        temperature: of the softmax; 1 leaves the probabilities as they are.
    """
    from scanmix.files.tables import new_table

    columns: dict[str, type[str] | type[float]] = {"path" if model.kind == "image" else "id": str}
    columns |= {"class": str, "probability": float}
    for place in range(2, top + 1):
        columns |= {f"class_{place}": str, f"probability_{place}": float}
    skipped: list[str] = []
    total = 0
    with new_table(out, columns) as write:
        for chunk in chunks:
            write(_rows(model, run, chunk, top, temperature))
            skipped += chunk.skipped
            total += len(chunk.names) + len(chunk.skipped)
        show_skipped(skipped)
        if len(skipped) == total:
            what = "files could be read as an image" if model.kind == "image" else "rows holds numbers alone"
            raise UserError(f"not one of {total} {what}; nothing was written")
    return len(skipped), total


def _rows(model: Classifier, run: Path, chunk: Chunk, top: int, temperature: float) -> list[Row]:
    """A row of cells for each input, likeliest class first."""
    import numpy as np

    from scanmix.evaluate.calibration import temper
    from scanmix.files.npy import finite_rows

    if not chunk.names:
        return []
    raw = model.predict_proba(chunk.inputs) if model.kind == "vector" else _watched(model, chunk.inputs)
    good = finite_rows(raw)
    if not good.all():
        first = chunk.names[int(np.flatnonzero(~good)[0])]
        raise UserError(
            f"the model of {run} is damaged: its probabilities for {first} are not numbers; copy it anew or train again"
        )
    probs = temper(raw, temperature)
    best = np.argsort(-probs, axis=1, kind="stable")[:, :top]
    return [
        [name, *(cell for c in likeliest for cell in (model.class_names[c], float(shares[c])))]
        for name, shares, likeliest in zip(chunk.names, probs, best, strict=True)
    ]


def _watched(model: Classifier, inputs: np.ndarray) -> np.ndarray:
    """Return class probabilities; a bar shows the work. Shape: (N, ...) -> (N, C)."""
    import numpy as np

    found = []
    with progress("classifying", len(inputs)) as bar:
        for first in range(0, max(len(inputs), 1), STEP):
            found.append(model.predict_proba(inputs[first : first + STEP]))
            bar.advance(len(found[-1]))
    return np.concatenate(found)


def _find_temperature(model: Classifier, run: Path, data: str, root: Path | None) -> float:
    """Fit a temperature to labeled examples, and print it with its interval."""
    from scanmix.evaluate.calibration import fit_temperature

    examples = load_labeled(model, data, root if is_table(data) else None)
    _refuse_training_data(run, examples, data)
    found = fit_temperature(_watched(model, examples.images.numpy()), examples.labels.numpy())
    say(
        f"Temperature {found.temperature:.2f} (95 % interval {found.low:.2f} to {found.high:.2f}), "
        f"from {len(examples)} labels of which {percent(found.noise_rate)} seem wrong; "
        f"loss {found.loss_before:.3f} before, {found.loss_after:.3f} after."
    )
    return found.temperature


def _refuse_training_data(run: Path, examples: Examples, data: str) -> None:
    """Refuse to calibrate on the training data, which the network knows. An exported folder cannot be checked."""
    if not (run / "run.toml").is_file():
        return
    from scanmix.training import open_run

    source = open_run(run).settings.source
    if source is not None and _origin(source["train"]) == _origin(examples.source):
        what = f"{examples.kind}s"
        raise UserError(f"{data}: {run} was trained on these {what}; calibrate on labeled {what} it has not seen")


def _origin(source: Any) -> tuple[str, str]:
    return source["load"]["source"], source["split"]
