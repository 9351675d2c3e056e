"""Decode image files into squares of bytes, in the same way for training and for prediction.

This module needs NumPy and Pillow only: a model exported to ONNX uses it where PyTorch is not installed.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress

from scanmix.config import UserError
from scanmix.data.modes import is_deep_color, is_gray, to_8_bit
from scanmix.files import check_regular

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
"""The formats that are opened, by Pillow's names, whatever a file is called. For none of them does Pillow start another
program, as it does for EPS."""
TGA_SUFFIXES = frozenset((".tga", ".icb", ".vda", ".vst"))
"""TGA has no signature, so only files with these suffixes are tried as TGA."""
SUFFIXES = TGA_SUFFIXES | frozenset(
    (
        ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg",
        ".jpx", ".mpo", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    )
)  # fmt: skip
OTHER_IMAGES = frozenset(
    (
        ".arw", ".bpg", ".cr2", ".cr3", ".dcm", ".dds", ".dng", ".emf", ".eps", ".exr", ".fits", ".hdr", ".heic",
        ".heics", ".heif", ".hif", ".ico", ".j2c", ".jxl", ".nef", ".nii", ".npy", ".orf", ".pcx", ".pef", ".psd",
        ".qoi", ".raf", ".raw", ".rw2", ".sgi", ".srw", ".svg", ".wmf", ".xcf", ".xpm",
    )
)  # fmt: skip
"""Suffixes of image files that are not read."""
SIDE_FILES = frozenset(
    (
        ".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".lnk", ".log", ".md", ".parquet",
        ".pdf", ".pkl", ".pt", ".py", ".sh", ".toml", ".tsv", ".txt", ".url", ".xml", ".yaml", ".yml", ".zip",
    )
)  # fmt: skip
"""Suffixes of files that often lie beside images and are not images."""
PIXELS_AT_ONCE = 100_000_000
"""Pixels that all threads together decode at a time; an image with more is decoded alone."""
GROUP = 1024
"""Items that are handed to the threads at once."""
In = TypeVar("In")
Out = TypeVar("Out")


class Found(NamedTuple):
    """The files in a folder and below, sorted by path, without hidden ones."""

    images: list[Path]
    unread: list[Path]
    """Files that are or look like images of a format that is not read."""
    others: list[Path]
    """All other files."""


def find_images(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below, sorted by path, without hidden ones."""
    return sorted(images_in(folder))


def images_in(folder: Path) -> Iterator[Path]:
    """Yield the image files in `folder` and below in the order of the file system, without hidden ones.

    A file without a suffix counts as an image if its first bytes are those of an image.
    """
    return (path for path in _files_in(folder) if _is_image(path))


def sort_files(folder: Path) -> Found:
    """Sort the files in `folder` and below into images, unread images and others."""
    found = Found([], [], [])
    for path in sorted(_files_in(folder)):
        if _is_image(path):
            found.images.append(path)
        elif _looks_like_image(path):
            found.unread.append(path)
        else:
            found.others.append(path)
    return found


def open_image(path: str | Path) -> Image.Image:
    """Open an image file of one of `FORMATS` without decoding it. All image files are opened here.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device, which are never opened; says which, without its path.
        Exception: of any type, if it is not such an image or is damaged.
    """
    try:
        check_regular(path)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{path} is ")) from None
    is_tga = Path(path).suffix.lower() in TGA_SUFFIXES
    return Image.open(path, formats=[*_known_formats(), "TGA"] if is_tga else _known_formats())


@contextmanager
def loaded(path: Path, least: int, channels: int | None = None) -> Iterator[Image.Image]:
    """Decode an image file to "L" or "RGB", upright.

    The block waits until there is room: `PIXELS_AT_ONCE` limits the pixels in memory of all blocks that run.

    Args:
        path: the file.
        least: pixels a side that are enough; a JPEG is decoded at a fraction of its size where that leaves as many.
        channels: 1 or 3; by default as many as the file has.

    Raises:
        Exception: of any type, if the file cannot be read; `why_unreadable` says why in words.
    """
    with open_image(path) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which is many times quicker for photographs.
        image.draft(None, (least, least))
        deep = is_deep_color(image)
        with _pixel_limit.taken(image.width * image.height):
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            yield to_8_bit(image, channels or natural_channels(image), deep)


def upright(image: Image.Image, channels: int | None = None) -> Image.Image:
    """Convert an image in memory as `loaded` does a file: to "L" or "RGB", turned as its EXIF says.

    The given image is not changed.

    Raises:
        Exception: of any type, if it cannot be read; `why_unreadable` says why in words.
    """
    deep = is_deep_color(image)
    return to_8_bit(ImageOps.exif_transpose(image), channels or natural_channels(image), deep)


def natural_channels(image: Image.Image) -> int:
    """Return 1 for a gray image, 3 for one in color."""
    return 1 if is_gray(image.mode) else 3


def decode_images(paths: Sequence[Path], size: int, channels: int) -> list[np.ndarray | str]:
    """Decode image files; for a file that cannot be read, the list holds the reason as a text.

    Shape: -> (channels, size, size) uint8 for each path.
    """
    return list(decoding(paths, size, channels))


def decoding(paths: Sequence[Path], size: int, channels: int) -> Iterator[np.ndarray | str]:
    """Yield what `decode_images` returns one by one, so that few images are in memory at once.

    Shape: -> (channels, size, size) uint8 for each path.
    """
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
    # The crop is the box of the resize, so that no pixels of a panorama are scaled and then cut off.
    left, top = (wide - size) // 2 * width / wide, (high - size) // 2 * height / high
    box = (left, top, left + size * width / wide, top + size * height / high)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def threaded(work: Callable[[In], Out], items: Sequence[In], title: str) -> Iterator[Out]:
    """Yield `work(item)` in the order of `items`, computed by threads, with a progress bar on a terminal."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # In groups: a pool that is given everything at once computes ahead and holds all results not yet taken.
        groups = (pool.map(work, items[start : start + GROUP]) for start in range(0, len(items), GROUP))
        yield from _with_bar(itertools.chain.from_iterable(groups), len(items), title)


def why_unreadable(error: Exception) -> str:
    """Return in a few words on one line why a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()) or type(error).__name__


def readable(path: Path | str) -> str:
    r"""Return a path as text that can be shown and stored: bytes that are not UTF-8 become `\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of an "L" or "RGB" image. Shape: -> (channels, H, W) uint8."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _decode(path: Path, size: int, channels: int) -> np.ndarray | str:
    if readable(path) != str(path):
        return "its name is not UTF-8; rename it"  # a table of labels could not name it
    try:
        with loaded(path, 2 * size, channels) as image:  # at least twice the pixels a side that are kept
            return pixels_of(square(image, size))
    except Exception as error:  # decoders raise errors of any type on damaged files
        return why_unreadable(error)


def _files_in(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()
    )


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (_is_meaningless(suffix) and _is_recognized(path))


def _looks_like_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in OTHER_IMAGES or (suffix not in SIDE_FILES and not _is_meaningless(suffix) and _is_recognized(path))


def _is_meaningless(suffix: str) -> bool:
    """Whether a suffix names no type of file: it is empty, a number as in `scan.001`, or has words in it."""
    return suffix[1:].isdigit() or " " in suffix or len(suffix) < 2


def _is_recognized(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with open_image(path):
                return True
    except Exception:  # decoders raise errors of any type on files that are not images
        return False


@cache
def _known_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class _PixelLimit:
    """Limits the pixels that all threads together hold in memory."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait until there is room for `count` pixels; an image above the limit waits until it is the only one."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= PIXELS_AT_ONCE)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


_pixel_limit = _PixelLimit()


def _with_bar(results: Iterable[Out], total: int, title: str) -> Iterator[Out]:
    """Yield the results; on a terminal, show a bar if they take more than two seconds."""
    started, bar, task = time.monotonic(), None, None
    with ExitStack() as stack:
        for done, result in enumerate(results):
            if bar is None and sys.stderr.isatty() and time.monotonic() - started > 2:
                bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = bar.add_task(title, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done + 1)
            yield result
