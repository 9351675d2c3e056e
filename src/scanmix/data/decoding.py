"""Image files to squares of bytes: one decoding for training and for prediction.

NumPy and Pillow only: a model exported to ONNX looks at pictures where there is no PyTorch.
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
from scanmix.data.modes import is_deep_color, is_gray, plain
from scanmix.files import check_regular

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
"""All that is ever opened, by Pillow's names, whatever a file is called: nothing here starts another program."""
TGA_SUFFIXES = frozenset((".tga", ".icb", ".vda", ".vst"))
"""TGA has no signature: it is looked for in files of these names only."""
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
"""Kinds of image files that are not read."""
SIDE_FILES = frozenset(
    (
        ".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".lnk", ".log", ".md", ".parquet",
        ".pdf", ".pkl", ".pt", ".py", ".sh", ".toml", ".tsv", ".txt", ".url", ".xml", ".yaml", ".yml", ".zip",
    )
)  # fmt: skip
"""What lies beside images and is none."""
PIXELS_AT_ONCE = 100_000_000
"""Pixels that all threads together decode at a time; a picture of more is decoded alone."""
TURN = 1024
"""Items that threads are handed at once."""
In = TypeVar("In")
Out = TypeVar("Out")


class Found(NamedTuple):
    """Files in a folder and below, hidden ones left out, by name."""

    images: list[Path]
    unread: list[Path]
    """Those that are or look like images of a kind that is not read."""
    others: list[Path]


def find_images(folder: Path) -> list[Path]:
    """Return the image files in `folder` and below, by name, hidden ones left out."""
    return sorted(images_in(folder))


def images_in(folder: Path) -> Iterator[Path]:
    """Yield the image files in `folder` and below as they come, hidden ones left out.

    A file without a suffix is one if it begins like one.
    """
    return (path for path in _files_in(folder) if _is_image(path))


def sort_files(folder: Path) -> Found:
    """Return the image files in `folder` and below, those that are passed over though they look like some, the rest."""
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
    """Open an image file of one of `FORMATS`; nothing is decoded yet. Only this opens image files.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device, which are never opened; says which, without its path.
        Exception: any, where it is no such image or is damaged.
    """
    try:
        check_regular(path)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{path} is ")) from None
    is_tga = Path(path).suffix.lower() in TGA_SUFFIXES
    return Image.open(path, formats=[*_known_formats(), "TGA"] if is_tga else _known_formats())


@contextmanager
def loaded(path: Path, least: int, channels: int | None = None) -> Iterator[Image.Image]:
    """Decode an image file: "L" or "RGB", upright. No more than a few huge ones are in memory while blocks run.

    Args:
        path: the file.
        least: so many pixels a side are enough; what can be decoded smaller than it is will be.
        channels: 1 or 3; by default what it has.

    Raises:
        Exception: any, where it cannot be read; `reason` says why.
    """
    with open_image(path) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8: photographs become many times quicker.
        image.draft(None, (least, least))
        deep = is_deep_color(image)
        with _room.taken(image.width * image.height):
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            yield plain(image, channels or natural_channels(image), deep)


def upright(image: Image.Image, channels: int | None = None) -> Image.Image:
    """Look at a picture in memory as at its file: "L" or "RGB", turned as its EXIF says; it stays as it is.

    Raises:
        Exception: any, where it cannot be read; `reason` says why.
    """
    deep = is_deep_color(image)
    return plain(ImageOps.exif_transpose(image), channels or natural_channels(image), deep)


def natural_channels(image: Image.Image) -> int:
    """Return 1 for a gray picture, 3 for one in color."""
    return 1 if is_gray(image.mode) else 3


def decode_images(paths: Sequence[Path], size: int, channels: int) -> list[np.ndarray | str]:
    """Decode image files; in place of one that cannot be read stands why.

    Shape: -> (channels, size, size) uint8 for each path.
    """
    return list(decoding(paths, size, channels))


def decoding(paths: Sequence[Path], size: int, channels: int) -> Iterator[np.ndarray | str]:
    """Yield what `decode_images` returns, one by one: few are in memory at once."""
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


def why_unreadable(error: Exception) -> str:
    """Say in a few words on one line why a file could not be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()) or type(error).__name__


def readable(path: Path | str) -> str:
    """Write a path so that every terminal and file takes it: bytes that are no UTF-8 by their numbers."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def pixels_of(picture: Image.Image) -> np.ndarray:
    """Return the pixels of an "L" or "RGB" picture. Shape: -> (channels, H, W) uint8."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _decode(path: Path, size: int, channels: int) -> np.ndarray | str:
    if readable(path) != str(path):
        return "its name is not UTF-8; rename it"  # no table of labels could name it
    try:
        with loaded(path, 2 * size, channels) as picture:  # at least twice the pixels a side that are kept
            return pixels_of(square(picture, size))
    except Exception as error:  # decoders raise whatever they like on broken input
        return why_unreadable(error)


def _files_in(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()
    )


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (_is_no_suffix(suffix) and _is_recognized(path))


def _looks_like_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in OTHER_IMAGES or (suffix not in SIDE_FILES and not _is_no_suffix(suffix) and _is_recognized(path))


def _is_no_suffix(suffix: str) -> bool:
    """Whether what follows the last dot of a name is no kind of file: nothing, a number as in `scan.001`, words."""
    return suffix[1:].isdigit() or " " in suffix or len(suffix) < 2


def _is_recognized(path: Path) -> bool:
    """Whether a file begins like an image."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with open_image(path):
                return True
    except Exception:  # decoders raise whatever they like on what is no image
        return False


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class _Room:
    """So many pixels are in memory at a time, whoever decodes them."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait until there is room for `count` pixels, for more than all until there is no other picture."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + count <= PIXELS_AT_ONCE)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


_room = _Room()


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
