"""From pictures of bytes to what an encoder reads: resized, cut to its size, normalized.

Legend: B batch, C channels, H height, W width; h, w the encoder's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.config import UserError

Interpolation = Literal["bicubic", "bilinear"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("bicubic", "bilinear")
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray, as Pillow has them (ITU-R 601)."""


@dataclass(frozen=True)
class Preparation:
    """How an encoder wants its pictures."""

    size: tuple[int, int]
    """(h, w) in pixels."""
    mean: tuple[float, ...]
    """Of each channel, of pixels from 0 to 1; one number for an encoder of gray pictures, else three."""
    std: tuple[float, ...]
    """As `mean`."""
    crop: float = 1.0
    """Share of the resized picture's side that the center crop keeps, above 0 and up to 1."""
    interpolation: Interpolation = "bicubic"

    @property
    def side(self) -> int:
        """Pixels of the shorter side of a picture that needs no resizing."""
        return max(int(length / self.crop) for length in self.size)

    def resized(self, images: Tensor) -> Tensor:
        """Resize so that the center crop covers the encoder's size, cut it, and make gray of color or color of gray.

        Sides are rounded down, as torchvision does, and pixels are Pillow's up to rounding.
        Shape: (B, 1 or 3, H, W) uint8 -> (B, 1 or 3, h, w) uint8.

        Raises:
            UserError: the pictures are neither gray nor of three channels.
        """
        height, width = images.shape[2:]
        wanted = self._covering(height, width)
        if wanted != [height, width]:
            images = F.interpolate(images.contiguous(), size=wanted, mode=self.interpolation, antialias=True)
        top, left = (round((length - kept) / 2) for length, kept in zip(wanted, self.size, strict=True))
        return _in_channels(images[:, :, top : top + self.size[0], left : left + self.size[1]], len(self.mean))

    def only_cuts(self, size: tuple[int, int]) -> bool:
        """Return whether pictures of this height and width are cut without being resized."""
        return self._covering(*size) == list(size)

    def _covering(self, height: int, width: int) -> list[int]:
        """Return the height and width to which a picture is resized before it is cut."""
        covered = [int(length / self.crop) for length in self.size]
        by_height = covered[0] * width >= covered[1] * height
        up, down = (covered[0], height) if by_height else (covered[1], width)
        return [max(least, up * length // down) for least, length in zip(covered, (height, width), strict=True)]

    def normalized(self, pixels: Tensor) -> Tensor:
        """Scale to 0..1, subtract the mean, divide by the deviation. Shape: (B, C, h, w) uint8 -> the same, float32."""
        mean, std = (torch.tensor(given, device=pixels.device)[:, None, None] for given in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


def _in_channels(images: Tensor, channels: int) -> Tensor:
    """Return gray pictures in color or colored ones in gray, where the encoder reads the other."""
    found = images.shape[1]
    if found == channels:
        return images
    if found == 1:
        return images.expand(-1, channels, -1, -1)
    if found != 3:
        raise UserError(f"encoders take gray pictures or those of 3 channels, not of {found}")
    gray = (images * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return gray.round().to(torch.uint8)
