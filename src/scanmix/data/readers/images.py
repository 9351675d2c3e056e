"""Read image files of all formats into one uint8 array; files that cannot be read are set aside."""

from __future__ import annotations

import dataclasses
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scanmix.config import DataError, UserError
from scanmix.data.decoding import decoding, loaded, open_image, readable, square, threaded, why_unreadable
from scanmix.data.examples import Examples
from scanmix.data.modes import has_transparency, is_gray
from scanmix.data.store import collect_decoded

MOST_RESIZED = 100_000_000_000
"""Bytes that a resized data set may have, because it is held in memory."""


class Header(NamedTuple):
    """What the header of an image file says, known without decoding it; sizes in pixels."""

    width: int
    height: int
    mode: str
    """Pillow's name of the mode: "L", "RGB", "RGBA" ..."""
    transparent: bool

    @property
    def gray(self) -> bool:
        """Whether the image has no color."""
        return is_gray(self.mode)


@dataclass(frozen=True)
class DecodedImages:
    """Images of the files that could be read, and reasons for the others.

    Attributes:
        images: (M, channels, size, size) uint8, in the order of the paths that could be read.
        kept: positions of these M paths, ascending.
        skipped: "path: reason" for each other path.
    """

    images: Tensor
    kept: tuple[int, ...]
    skipped: tuple[str, ...]


def read_images(
    paths: Sequence[Path], size: int | None = None, channels: int | None = None, sized_by: int | None = None
) -> DecodedImages:
    """Decode image files into squares of one size and one number of channels.

    Args:
        paths: the files; those that cannot be decoded are set aside, and one warning counts them.
        size: side in pixels; by default as `default_size` says.
        channels: 1 or 3; by default 1 if every file is gray, else 3.
        sized_by: number of files, from the first on, that decide the default size: the training images.

    Raises:
        DataError: not one file can be read.
    """
    measured = read_headers(paths) if size is None or channels is None else []
    headers = [header for header in measured if not isinstance(header, str)]
    if size is None:
        deciding = [header for header in measured[:sized_by] if not isinstance(header, str)] or headers
        size = default_size([min(header.width, header.height) for header in deciding])
    if channels is None:
        channels = 1 if all(header.gray for header in headers) else 3
    decoded = collect_decoded(decoding(paths, size, channels), paths, (channels, size, size))
    kept = tuple(i for i in range(len(paths)) if i not in decoded.failed)
    skipped = tuple(f"{readable(paths[i])}: {why}" for i, why in decoded.failed.items())
    if not kept:
        raise DataError(f"not one of {len(paths)} images could be read; the first: {(*skipped, 'none')[0]}.")
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(paths)} images could not be read and were set aside; first {skipped[0]}",
            stacklevel=2,
        )
    return DecodedImages(decoded.images, kept, skipped)


def read_headers(paths: Sequence[Path]) -> list[Header | str]:
    """Read sizes and modes of image files; for a file that cannot be opened, the list holds the reason as a text."""
    with warnings.catch_warnings():
        # Pillow's warnings about single files are not shown; files that it cannot read are in `skipped`.
        warnings.filterwarnings("ignore", module="PIL")
        return list(threaded(_read_header, paths, "measuring images"))


def preview(source: str | Path | Tensor, side: int) -> Image.Image:
    """Return the whole image for people to look at: upright, gray or in color, at most `side` pixels a side.

    Shape: a file, or (1 or 3, H, W) uint8 -> an image with the same ratio of sides.

    Args:
        source: a file or pixels.
        side: largest side in pixels; a smaller image keeps its size.

    Raises:
        UserError: the file cannot be read; says why.
    """
    if isinstance(source, Tensor):
        image = Image.fromarray((source[0] if len(source) == 1 else source.permute(1, 2, 0)).numpy())
        image.thumbnail((side, side))
        return image
    return _read_upright(Path(source), side)


def _read_upright(path: Path, side: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with loaded(path, side) as image:
                image.thumbnail((side, side))  # inside the block, which limits how many huge images are in memory
                return image
    except Exception as error:  # decoders raise errors of any type on damaged files
        raise UserError(why_unreadable(error)) from None


def default_size(shorter_sides: Sequence[int]) -> int:
    """Return the median of the shorter sides in pixels, rounded to a multiple of 8 and limited to 16..64."""
    middle = statistics.median(shorter_sides) if shorter_sides else 32
    return min(64, max(16, 8 * int(middle / 8 + 0.5)))


def median_side(headers: Sequence[Header]) -> int:
    """Return the median of the shorter sides in pixels; 32 if there are no headers."""
    return int(statistics.median(min(header.width, header.height) for header in headers)) if headers else 32


def side_within(paths: Sequence[Path], side: int) -> int:
    """Return `side`, or the median shorter side of the files where that is smaller, in pixels; at least 8.

    For an encoder that wants pictures of `side` pixels: nothing is gained by larger ones than the files have.
    """
    headers = [header for header in read_headers(paths) if not isinstance(header, str)]
    return max(8, min(side, median_side(headers)))


def resize_all(examples: Examples, size: int) -> Examples:
    """Return the examples with images resized to `size` pixels a side. Shape: (N, c, H, W) -> (N, c, size, size).

    Raises:
        UserError: the result would have more than `MOST_RESIZED` bytes.
    """
    if examples.size == (size, size):
        return examples
    wanted = len(examples) * examples.channels * size**2
    if wanted > MOST_RESIZED:
        gigabytes = f"{wanted / 1e9:.0f} GB"
        raise UserError(f"{len(examples)} images of {size}x{size} pixels take {gigabytes}; choose a smaller size")
    resized = np.empty((len(examples), examples.channels, size, size), dtype=np.uint8)
    for i, image in enumerate(examples.images.numpy()):
        for plane in range(examples.channels):
            resized[i, plane] = np.asarray(square(Image.fromarray(image[plane]), size))
    return dataclasses.replace(examples, images=torch.from_numpy(resized))


def _read_header(path: Path) -> Header | str:
    try:
        with open_image(path) as image:
            return Header(*image.size, image.mode, has_transparency(image))
    except Exception as error:  # decoders raise errors of any type on damaged files
        return why_unreadable(error)
