"""Inputs named on the command line: images or vectors to classify, and labeled ones to measure with."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scanmix.config import UserError, check_recipe
from scanmix.data.noise_spec import parse_noise
from scanmix.data.sources import check_source, is_known, kind_of, name_of
from scanmix.progress import progress

if TYPE_CHECKING:
    import numpy as np

    from scanmix.data.examples import Examples
    from scanmix.export.classifier import Classifier

STDIN = Path("-")
TABLES = (".csv", ".parquet")
CHUNK = 4096
"""Images decoded at a time: memory does not grow with their number."""


class Chunk(NamedTuple):
    """A part of the inputs, and those in it that cannot be read, each as "name: reason"."""

    names: list[str]
    inputs: np.ndarray
    """(B, C, H, W) uint8 images, or (B, D) float32 vectors."""
    skipped: list[str]


def is_table(source: Path | str | None) -> bool:
    """Whether a source is a table, judged by its suffix."""
    return source is not None and Path(source).suffix.lower() in TABLES


def find_files(paths: Sequence[Path], root: Path | None = None) -> list[Path]:
    """Return files that are named, in folders, or listed in tables or on standard input (`-`); each once, in order.

    Args:
        paths: files, folders, tables, or `-`.
        root: folder that the paths in tables are relative to; by default the folder of each table.

    Raises:
        UserError: one of the paths does not exist, or there are no image files in it.
    """
    from scanmix.data.decoding import find_images

    check_there(path for path in paths if path != STDIN)
    found: dict[Path, None] = {}
    for path in paths:
        if path == STDIN:
            inside = _from_stdin()
        elif path.is_dir():
            inside = find_images(path)
        elif is_table(path):
            inside = _from_table(path, root)
        else:
            inside = [path]
        if not inside:
            raise UserError(f"{'standard input' if path == STDIN else path} holds no image files")
        found |= dict.fromkeys(inside)
    return list(found)


def image_chunks(files: Sequence[Path], model: Classifier) -> Iterator[Chunk]:
    """Yield decoded images with their paths; files that cannot be read are skipped."""
    import numpy as np

    from scanmix.data.decoding import decode_images, readable

    for first in range(0, len(files), CHUNK):
        chunk = files[first : first + CHUNK]
        outcomes = list(zip(chunk, decode_images(chunk, model.size[0], model.channels), strict=True))
        read = [(str(file), image) for file, image in outcomes if not isinstance(image, str)]
        images = (
            np.stack([image for _, image in read]) if read else np.empty((0, model.channels, *model.size), np.uint8)
        )
        skipped = [f"{readable(file)}: {reason}" for file, reason in outcomes if isinstance(reason, str)]
        yield Chunk([name for name, _ in read], images, skipped)


def read_vector_files(paths: Sequence[Path], run: Path, features: int) -> dict[Path, np.ndarray]:
    """Read `.npy` files of vectors. Shape: -> (N, features) float32 of each.

    Raises:
        UserError: one is no such file, has another number of features, or two have the same name.
    """
    from scanmix.files.npy import read_rows

    found: dict[Path, np.ndarray] = {}
    for path in paths:
        if path.suffix.lower() != ".npy":
            raise UserError(f"{run} takes vectors, one a row of a .npy file; {path} is none")
        if any(path.stem == other.stem and path != other for other in found):
            raise UserError(f"two files are called {path.name}, so their rows would be, too; rename one")
        found[path] = read_rows(path)
        if found[path].shape[1] != features:
            raise UserError(f"{path} has {found[path].shape[1]} features; {run} was trained on {features}")
    return found


def vector_chunks(files: Mapping[Path, np.ndarray]) -> Iterator[Chunk]:
    """Yield rows with their names, such as `new/0`; rows with NaN or infinite numbers are skipped.

    Shape: files (N, D) float32 each.
    """
    from scanmix.files.npy import finite_rows, row_names

    with progress("classifying", sum(map(len, files.values()))) as bar:
        for path, rows in files.items():
            names, finite = row_names(path, len(rows)), finite_rows(rows)
            for first in range(0, len(rows), CHUNK):
                part = slice(first, first + CHUNK)
                marked = list(zip(names[part], finite[part], strict=True))
                skipped = [f"{name}: infinite or not a number" for name, good in marked if not good]
                yield Chunk([name for name, good in marked if good], rows[part][finite[part]], skipped)
                bar.advance(len(marked))


def check_inputs(
    data: str, *, noise: str = "none", recipe: str | None = None, test: str | None = None,
    files: Sequence[Path | None] = (),
) -> None:  # fmt: skip
    """Refuse what is mistyped or missing, before PyTorch is loaded, which takes seconds, and before data are read.

    Args:
        data: DATA.
        noise: of `--noise`.
        recipe: of `--recipe`.
        test: of `--test`.
        files: other files that are read.

    Raises:
        UserError: one of them is not there, or a name is not known.
    """
    for source in (data, *([] if test is None else [test])):
        check_source(source)
    spec = parse_noise(noise)
    if recipe is not None:
        check_recipe(recipe)
    if spec.kind == "openset":
        check_source(spec.path or "")
    named = [path.expanduser() for path in files if path is not None]
    check_there([*named, Path(spec.path)] if spec.kind == "file" and spec.path else named)


def check_there(paths: Iterable[Path]) -> None:
    """Refuse a file or folder that does not exist.

    Raises:
        UserError: says which.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")


def size_for(data: str, root: Path | None, side: int | None) -> int | None:
    """Return the side in pixels at which files are read for an encoder that wants `side`; None if there are none."""
    from scanmix.data.readers.images import side_within

    if side is None or is_known(data) or kind_of(data) == "vector" or not Path(data).expanduser().exists():
        return None
    return side_within(find_files([Path(data).expanduser()], root), side)


def load_labeled(model: Classifier, data: str, root: Path | None = None) -> Examples:
    """Load labeled images or vectors with a model's classes, size and channels; their test part if there is one.

    Raises:
        UserError: they cannot be read, or have a class that the model does not have.
    """
    from scanmix.data.readers import load, match

    height, width = model.size
    train, test = load(data, root=root, size=height if height == width > 1 else None, least_classes=1)
    return match(test or train, model.class_names, model.size, model.channels)


def relabeled(examples: Examples, noise: str, seed: int, corrections: Path | None) -> Examples:
    """Add the noise of `--noise`, if there is any, then what a person has corrected (`--labels`).

    Raises:
        UserError: the noise or the corrections do not fit the examples.
    """
    from scanmix.data.corrections import apply_corrections
    from scanmix.semantic_noise import apply_noise

    if parse_noise(noise).kind != "none":
        with progress("noise", None) as bar:  # that of a network takes a while
            examples = apply_noise(examples, noise, seed, bar)
    return examples if corrections is None else apply_corrections(examples, corrections)


def name_parts(data: str, noise: str, labels: Path | None = None) -> list[str]:
    """Return what names the data in a folder's name: `cifar10n-worse`, then noise and corrections if there are any."""
    kind, _, value = noise.partition(":")
    noise = f"file-{Path(value).stem}" if kind == "file" else noise
    name = data.replace(":", "-") if is_known(data) else name_of(data)
    return [name, *([] if noise == "none" else [noise]), *([] if labels is None else [labels.stem])]


def plain_name(parts: Sequence[str]) -> str:
    """Return the name of a folder, of letters, digits, dots and dashes."""
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts)


def _from_stdin() -> list[Path]:
    """Read one path a line, in the bytes of the file system, which need not be UTF-8."""
    lines = sys.stdin.buffer.read().split(b"\n")  # only \n ends a line: other line ends may be part of a name
    return [Path(os.fsdecode(line)) for line in (line.removesuffix(b"\r") for line in lines) if line.strip()]


def _from_table(table: Path, root: Path | None) -> list[Path]:
    """Return the paths in the column `path`, relative to `root`, else to the table's folder."""
    from scanmix.files.cells import as_text
    from scanmix.files.tables import read_records

    base = table.parent if root is None else root.expanduser()
    try:
        cells = [as_text(record["path"]) for record in read_records(table, required=("path",))]
    except ValueError as error:
        raise UserError(f"{table} has {error} as its path; one path a row is needed") from None
    return [base / cell for cell in cells if cell]


def shares_of(prior: str | None) -> dict[str, float] | None:
    """Return the shares of `--prior` by class, as `cat=0.7,dog=0.3` has them."""
    if prior is None:
        return None
    found = {}
    for part in prior.split(","):
        name, sign, share = part.rpartition("=")
        try:
            if not sign or name.strip() in found:
                raise ValueError
            found[name.strip()] = float(share)
        except ValueError:
            raise UserError(
                f"--prior: {part!r} is no class with its share; write each class once, as cat=0.7"
            ) from None
    return found
