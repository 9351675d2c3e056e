"""Convert pixels of arrays, floats or integers with the channels last, to uint8 images.

Legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError

WHITES = (1, 16, 255)
"""Values that may stand for white: 1 in floats, 16 in scikit-learn's digits, 255 in 8-bit images."""

CHUNK = 4096
"""Rows that are checked together: the mask of all rows at once would need as many values as the array has."""


def find_white(pixels: np.ndarray) -> int:
    """Return which of `WHITES` stands for white: the smallest that no pixel exceeds. Shape: (N, ...) -> scalar.

    Images of 0..255 are mistaken only if no pixel of any of them is above 16; all of them would look black.

    Raises:
        UserError: a pixel is below 0 or above 255, infinite or missing.
    """
    check_finite(pixels, "pixels")
    low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if low < 0 or high > WHITES[-1]:
        raise UserError(
            f"pixels must lie in 0..1 or 0..255, but run from {low:g} to {high:g}; scale them, "
            "for example with (X - X.min()) / (X.max() - X.min())"
        )
    return next(white for white in WHITES if high <= white)


def to_images(pixels: np.ndarray, white: int) -> Tensor:
    """Scale pixels of 0..white to 0..255, channels first. Shape: (N, H, W) or (N, H, W, C) -> (N, C, H, W) uint8.

    Raises:
        UserError: the shape is another, there are neither 1 nor 3 channels, a pixel is outside 0..white, infinite or
            missing, or the pixels are floats of 0..1 although white is not 1.
    """
    if pixels.ndim == 4 and pixels.shape[3] not in (1, 3):
        hint = "; channels stand last: X.transpose(0, 2, 3, 1)" if pixels.shape[1] in (1, 3) else ""
        raise UserError(f"images must have 1 or 3 channels, but X has the shape {pixels.shape}{hint}")
    if pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
        raise UserError(f"images must be of shape (N, H, W) or (N, H, W, C), not {pixels.shape}")
    check_finite(pixels, "pixels")
    low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if not 0 <= low <= high <= white:
        raise UserError(
            f"pixels run from {float(low):g} to {float(high):g}, but those of training made {white} white; scale alike"
        )
    if white > 1 and pixels.dtype.kind in "fb" and 0 < high <= 1:  # would look black: another scale
        raise UserError(
            f"pixels run from {float(low):g} to {float(high):g} as if 1 were white, but those of training made {white} "
            f"white; multiply by {white}"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or white != WHITES[-1]:
        pixels = np.rint(pixels * (255 / white)).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def check_finite(rows: np.ndarray, what: str) -> None:
    """Check that no number is infinite or NaN. Shape: (N, ...).

    Args:
        rows: numbers of any type.
        what: what the error calls them: "pixels", "features".

    Raises:
        UserError: a number is; the message gives the number of such rows and the first of them, counted from 0.
    """
    if rows.dtype.kind not in "fc" or not rows.size:
        return
    parts = (np.isfinite(part).reshape(len(part), -1).all(1) for part in np.array_split(rows, -(-len(rows) // CHUNK)))
    invalid = np.flatnonzero(~np.concatenate(list(parts)))
    if len(invalid):
        rest = f"{'row' if len(invalid) == 1 else 'rows'}, first row {invalid[0]}"
        raise UserError(f"{what} are NaN, infinite or too large in {len(invalid)} {rest}; repair or leave them out")


def same_shape(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack images of one size; if one of them has color, gray images become color images too.

    Shape: N of (H, W) or (H, W, C) -> (N, H, W) or (N, H, W, C).

    Raises:
        UserError: there is no image, or sizes or scales differ; names the first that differs, counted from 0.
    """
    if not images:
        raise UserError("images are needed, and there is none")
    if any(image.ndim == 3 and image.shape[2] == 3 for image in images):
        images = [np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image for image in images]
    first = images[0]
    for row, image in enumerate(images):
        if image.shape != first.shape:
            raise UserError(
                f"images must be of one shape, not {first.shape} and {image.shape} (rows 0 and {row}); resize them, or "
                "give files"
            )
        if (image.dtype == np.uint8) != (first.dtype == np.uint8):
            raise UserError(
                f"images must be of one type, not {first.dtype} and {image.dtype} (rows 0 and {row}): bytes have 255 "
                "for white, other numbers may not"
            )
    return np.stack(images)
