"""Image files to squares of bytes: one decoding for training and for prediction.

NumPy and Pillow only: a model exported to ONNX looks at pictures where there is no PyTorch.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
GRAY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"))
TRANSPARENT_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA"))
TURN = 1024
"""Items that threads are handed at once."""
In = TypeVar("In")
Out = TypeVar("Out")


def find_pictures(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below, by name, hidden ones left out."""
    return sorted(pictures_in(folder))


def pictures_in(folder: Path) -> Iterator[Path]:
    """Yield the image files in `folder` and below as they come, hidden ones left out."""
    return (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def decode_pictures(paths: Sequence[Path], size: int, channels: int) -> list[np.ndarray | str]:
    """Decode image files; in place of one that cannot be read stands why.

    Shape: -> (channels, size, size) uint8 for each path.
    """
    return list(decoding(paths, size, channels))


def decoding(paths: Sequence[Path], size: int, channels: int) -> Iterator[np.ndarray | str]:
    """Yield what `decode_pictures` returns, one by one: few are in memory at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield from threaded(lambda path: _decode(path, size, channels), paths, "reading images")


def square(image: Image.Image, size: int) -> Image.Image:
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


def threaded(work: Callable[[In], Out], items: Sequence[In], title: str) -> Iterator[Out]:
    """Yield `work(item)` in the order of `items`, done by threads; on a terminal a bar shows how far they are."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # In turns: a pool that is handed everything works on, and holds all results, however slowly they are taken.
        turns = (pool.map(work, items[start : start + TURN]) for start in range(0, len(items), TURN))
        yield from _shown(itertools.chain.from_iterable(turns), len(items), title)


def reason(error: Exception) -> str:
    """Say in a few words on one line why a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def readable(path: Path | str) -> str:
    """Write a path so that every terminal and file takes it: bytes that are no UTF-8 by their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def has_transparency(image: Image.Image) -> bool:
    """Whether some of it may be seen through."""
    return "transparency" in image.info or image.mode in TRANSPARENT_MODES


def _decode(path: Path, size: int, channels: int) -> np.ndarray | str:
    if readable(path) != str(path):
        return "its name is not UTF-8; rename it"  # no table of labels could name it
    try:
        with Image.open(path) as image:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8: photographs become many times quicker, and still have
            # at least twice the pixels a side that are kept.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            pixels = np.asarray(square(plain(ImageOps.exif_transpose(image), channels), size))
    except Exception as error:  # decoders raise whatever they like on broken input
        return reason(error)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Any mode to "L" or "RGB": 16 bits scaled to 8, transparency laid over white."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    if has_transparency(image):
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(white, over).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


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
