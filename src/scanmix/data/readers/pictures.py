"""Image files of any kind to one uint8 array: measured, decoded by threads, the unreadable set aside."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import Examples

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
GRAY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"))
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Pictures:
    """Decoded files.

    Attributes:
        images: (M, channels, size, size) uint8, in the order of the paths that could be read.
        kept: M positions of these paths.
        skipped: "path: reason" of every other one.
    """

    images: Tensor
    kept: tuple[int, ...]
    skipped: tuple[str, ...]


def find_pictures(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below, by name, hidden ones left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def read_pictures(
    paths: Sequence[Path], size: int | None = None, channels: int | None = None, sized_by: int | None = None
) -> Pictures:
    """Decode image files into squares of one size and one number of channels.

    Args:
        paths: the files; those that cannot be decoded are set aside, with one warning that counts them.
        size: side in pixels; by default the median shorter side in steps of 8, kept within 16..64.
        channels: 1 or 3; by default 1 if every file is gray, else 3.
        sized_by: let only the first so many files (the training images) decide the default size.

    Raises:
        UserError: if not one file can be read.
    """
    with warnings.catch_warnings():
        # What a decoder remarks about one file of thousands is no news; what it cannot read is in `skipped`.
        warnings.filterwarnings("ignore", module="PIL")
        measured = list(_threaded(_measure, paths, "measuring images"))
        shapes = [shape for shape in measured if not isinstance(shape, str)]
        if size is None:
            deciding = [shape for shape in measured[:sized_by] if not isinstance(shape, str)] or shapes
            size = default_size([side for side, _ in deciding])
        if channels is None:
            channels = 1 if all(gray for _, gray in shapes) else 3
        decoded = decode_pictures(paths, size, channels)
    kept = tuple(i for i, image in enumerate(decoded) if not isinstance(image, str))
    outcomes = zip(paths, decoded, strict=True)
    skipped = tuple(f"{path}: {image}" for path, image in outcomes if isinstance(image, str))
    if not kept:
        raise UserError(f"not one of {len(paths)} images could be read; the first: {(*skipped, 'none')[0]}.")
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(paths)} images could not be read and were set aside; first {skipped[0]}",
            stacklevel=2,
        )
    stacked = np.stack([image for image in decoded if not isinstance(image, str)])
    return Pictures(torch.from_numpy(stacked), kept, skipped)


def decode_pictures(paths: Sequence[Path], size: int, channels: int) -> list[np.ndarray | str]:
    """Decode image files; in place of one that cannot be read stands why.

    Shape: -> (channels, size, size) uint8 for each path.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        return list(_threaded(lambda path: _decode(path, size, channels), paths, "reading images"))


def read_preview(path: Path, side: int) -> Image.Image:
    """Return the whole picture, upright, gray or in color, at most `side` pixels a side; for people to look at.

    Raises:
        UserError: it cannot be read; says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(path) as image:
                image.draft(None, (side, side))
                image.load()
                upright = _plain(ImageOps.exif_transpose(image), 1 if image.mode in GRAY_MODES else 3)
    except Exception as error:  # decoders raise whatever they like on broken input
        raise UserError(_reason(error)) from None
    upright.thumbnail((side, side))
    return upright


def default_size(shorter_sides: Sequence[int]) -> int:
    """Return the median shorter side, rounded to a multiple of 8 and kept within 16..64."""
    middle = statistics.median(shorter_sides) if shorter_sides else 32
    return min(64, max(16, 8 * int(middle / 8 + 0.5)))


def resize_all(examples: Examples, size: int) -> Examples:
    """Return the examples with images resized to (size, size). Shape: (N, c, H, W) -> (N, c, size, size)."""
    if examples.size == (size, size):
        return examples
    resized = np.empty((len(examples), examples.channels, size, size), dtype=np.uint8)
    for i, image in enumerate(examples.images.numpy()):
        for plane in range(examples.channels):
            resized[i, plane] = np.asarray(_square(Image.fromarray(image[plane]), size))
    return dataclasses.replace(examples, images=torch.from_numpy(resized))


def _measure(path: Path) -> tuple[int, bool] | str:
    try:
        with Image.open(path) as image:
            return min(image.size), image.mode in GRAY_MODES
    except Exception as error:  # decoders raise whatever they like on broken input
        return _reason(error)


def _decode(path: Path, size: int, channels: int) -> np.ndarray | str:
    try:
        with Image.open(path) as image:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8: photographs become many times quicker, and still have
            # at least twice the pixels a side that are kept.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            pixels = np.asarray(_square(_plain(ImageOps.exif_transpose(image), channels), size))
    except Exception as error:  # as above
        return _reason(error)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Any mode to "L" or "RGB": 16 bits scaled to 8, transparency laid over white."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(white, over).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size`, then cut the center square."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    # The crop comes first, as a box of the resize: a panorama is not scaled beyond what is kept.
    left, top = (wide - size) // 2 * width / wide, (high - size) // 2 * height / high
    box = (left, top, left + size * width / wide, top + size * height / high)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _threaded(work: Callable[[In], Out], items: Sequence[In], title: str) -> Iterator[Out]:
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        yield from _shown(pool.map(work, items), len(items), title)


def _shown(results: Iterable[Out], total: int, title: str) -> Iterator[Out]:
    """Pass results on; on a terminal, show a bar once it has taken more than two seconds."""
    started, bar, task = time.monotonic(), None, None
    with ExitStack() as stack:
        for done, result in enumerate(results):
            if bar is None and sys.stderr.isatty() and time.monotonic() - started > 2:
                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task(title, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done + 1)
            yield result
