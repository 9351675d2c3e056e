"""Pixels as people hold them, floats or integers and channels last, to uint8 images.

Legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError

WHITES = (1, 16, 255)
"""What white may be: 1 in floats, 16 in scikit-learn's digits, 255 in 8-bit images."""


def find_white(pixels: np.ndarray) -> int:
    """Return which of `WHITES` stands for white: the smallest that no pixel exceeds.

    An image of 0..255 with no pixel above 16 would be black to the eye, so little can be mistaken.

    Raises:
        UserError: a pixel is below 0 or above 255.
    """
    low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if low < 0 or high > WHITES[-1]:
        raise UserError(
            f"pixels must lie in 0..1 or 0..255, but run from {low:g} to {high:g}; scale them, "
            "for example with (X - X.min()) / (X.max() - X.min())"
        )
    return next(white for white in WHITES if high <= white)


def to_images(pixels: np.ndarray, white: int) -> Tensor:
    """Turn pixels of 0..white into images, channels first. Shape: (N, H, W) or (N, H, W, C) -> (N, C, H, W) uint8.

    Raises:
        UserError: another shape, neither 1 nor 3 channels, or a pixel outside 0..white.
    """
    if pixels.ndim == 4 and pixels.shape[3] not in (1, 3):
        hint = "; channels stand last: X.transpose(0, 2, 3, 1)" if pixels.shape[1] in (1, 3) else ""
        raise UserError(f"images must have 1 or 3 channels, but X has the shape {pixels.shape}{hint}")
    if pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
        raise UserError(f"images must be of shape (N, H, W) or (N, H, W, C), not {pixels.shape}")
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= white:
        low, high = pixels.min(), pixels.max()
        raise UserError(f"pixels run from {low:g} to {high:g}, but those of training made {white} white; scale alike")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or white != WHITES[-1]:
        pixels = np.rint(pixels * (255 / white)).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
