"""Image files of any kind to one uint8 array: measured, decoded, the unreadable set aside."""

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
"""Bytes of pixels that a known data set may be resized to: they are held in memory."""


class Header(NamedTuple):
    """What an image file says of itself before it is decoded."""

    width: int
    height: int
    mode: str
    """Pillow's name: "L", "RGB", "RGBA" ..."""
    transparent: bool

    @property
    def gray(self) -> bool:
        """Whether there is no color in it."""
        return is_gray(self.mode)


@dataclass(frozen=True)
class DecodedImages:
    """Decoded files.

    Attributes:
        images: (M, channels, size, size) uint8, in the order of the paths that could be read.
        kept: M positions of these paths.
        skipped: "path: reason" of every other one.
    """

    images: Tensor
    kept: tuple[int, ...]
    skipped: tuple[str, ...]


def read_images(
    paths: Sequence[Path], size: int | None = None, channels: int | None = None, sized_by: int | None = None
) -> DecodedImages:
    """Decode image files into squares of one size and one number of channels.

    Args:
        paths: the files; those that cannot be decoded are set aside, with one warning that counts them.
        size: side in pixels; by default the median shorter side in steps of 8, kept within 16..64.
        channels: 1 or 3; by default 1 if every file is gray, else 3.
        sized_by: let only the first so many files (the training images) decide the default size.

    Raises:
        DataError: if not one file can be read.
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
    """Read sizes and modes of image files; in place of one that cannot be opened stands why."""
    with warnings.catch_warnings():
        # What a decoder remarks about one file of thousands is no news; what it cannot read is in `skipped`.
        warnings.filterwarnings("ignore", module="PIL")
        return list(threaded(_read_header, paths, "measuring images"))


def preview(source: str | Path | Tensor, side: int) -> Image.Image:
    """Return the whole picture, upright, gray or in color, at most `side` pixels a side; for people to look at.

    Args:
        source: a file; or pixels, (1 or 3, H, W) uint8.
        side: in pixels; what is smaller stays as it is.

    Raises:
        UserError: the file cannot be read; says why.
    """
    if isinstance(source, Tensor):
        picture = Image.fromarray((source[0] if len(source) == 1 else source.permute(1, 2, 0)).numpy())
        picture.thumbnail((side, side))
        return picture
    return _read_upright(Path(source), side)


def _read_upright(path: Path, side: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with loaded(path, side) as picture:
                picture.thumbnail((side, side))  # here, where there is room for few huge ones
                return picture
    except Exception as error:  # decoders raise whatever they like on broken input
        raise UserError(why_unreadable(error)) from None


def default_size(shorter_sides: Sequence[int]) -> int:
    """Return the median shorter side, rounded to a multiple of 8 and kept within 16..64."""
    middle = statistics.median(shorter_sides) if shorter_sides else 32
    return min(64, max(16, 8 * int(middle / 8 + 0.5)))


def resize_all(examples: Examples, size: int) -> Examples:
    """Return the examples with images resized to (size, size). Shape: (N, c, H, W) -> (N, c, size, size)."""
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
    except Exception as error:  # decoders raise whatever they like on broken input
        return why_unreadable(error)
