"""RandAugment on whole batches, with operations and amounts of its own for every image; and Cutout.

The usual transform runs image by image in Python. Here a batch is sorted by what was drawn, so that each operation
finds its images side by side and changes them in place with a handful of tensor calls, on whatever device they lie.

Pixels are whole numbers 0..255 in float32, rounded and clipped as Pillow does it on bytes (`ImageOps`, `ImageEnhance`,
`Image.transform`). Only three channels have color; for any other number `color` leaves the images alone.
Shapes: B batch, C channels, H height, W width, R operations an image. Where a docstring gives none: images
(B, C, H, W), changed in place, and one parameter an image (B,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional


def per_image(values: Tensor) -> Tensor:
    """Shape: (B,) -> (B, 1, 1, 1), to stand beside a batch of images."""
    return values.view(-1, 1, 1, 1)


# Tone: each pixel goes through a curve.


def autocontrast(images: Tensor, _: Tensor) -> None:
    """Stretch every channel of every image to 0..255; a constant channel stays.

    The quotients are exact; Pillow's, in floating point, are now and then one level lower.
    """
    low = images.amin(dim=(2, 3), keepdim=True)
    span = images.amax(dim=(2, 3), keepdim=True).sub_(low)
    constant = span == 0
    images.sub_(low.masked_fill_(constant, 0)).mul_(255).div_(span.masked_fill_(constant, 255)).floor_()


def equalize(images: Tensor, _: Tensor) -> None:
    """Even out the histogram of every channel of every image.

    A channel with fewer than 255 pixels below its brightest value has no step to even out and stays.
    """
    pixels = images.flatten(2).flatten(0, 1).long()
    offsets = 256 * torch.arange(len(pixels), device=images.device).unsqueeze(1)
    counts = torch.bincount((pixels + offsets).flatten(), minlength=256 * len(pixels)).view(-1, 256).float()
    brightest = counts.gather(1, pixels.amax(dim=1, keepdim=True))
    step = (pixels.shape[1] - brightest).div_(255).floor_()
    below = counts.cumsum(dim=1).sub_(counts)
    curve = below.add_((step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(max=255)
    steps = (step > 0).float()
    curve.mul_(steps).add_(torch.arange(256, device=images.device) * (1 - steps))
    torch.gather(curve, 1, pixels, out=images.view(pixels.shape))


def solarize(images: Tensor, threshold: Tensor) -> None:
    """Invert the pixels at or above the threshold (0..256)."""
    bright = images.clone().ge_(per_image(threshold))  # 0 or 1, but no bool: that is slow to multiply with
    images.add_((255 - 2 * images).mul_(bright))


def posterize(images: Tensor, bits: Tensor) -> None:
    """Keep the highest `bits` bits; a fraction of a bit is cut off."""
    step = torch.exp2(8 - per_image(bits.floor()))
    images.div_(step).floor_().mul_(step)


# Enhancement: blends of the image (factor 1) and a poorer version of itself (factor 0).


def _blend(images: Tensor, poorer: Tensor, factor: Tensor) -> None:
    images.sub_(poorer).mul_(per_image(factor)).add_(poorer).floor_().clamp_(0, 255)


def _gray_levels(images: Tensor) -> Tensor:
    """Whole-number luma, in 16-bit fixed point as in Pillow. Shape: (B, C, H, W) -> (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True).add_(0.5).floor_()
    red, green, blue = images.unbind(dim=1)
    # Every sum stays below 2**24, so float32 holds it exactly.
    luma = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768)
    return luma.div_(65536).floor_().unsqueeze(1)


def color(images: Tensor, factor: Tensor) -> None:
    """Blend with the gray image; nothing happens unless C = 3."""
    if images.shape[1] == 3:
        _blend(images, _gray_levels(images), factor)


def contrast(images: Tensor, factor: Tensor) -> None:
    """Blend with the mean gray level of the image."""
    _blend(images, _gray_levels(images).mean(dim=(1, 2, 3), keepdim=True).add_(0.5).floor_(), factor)


def brightness(images: Tensor, factor: Tensor) -> None:
    """Blend with black."""
    images.mul_(per_image(factor)).floor_().clamp_(0, 255)


def sharpness(images: Tensor, factor: Tensor) -> None:
    """Blend with the image smoothed by the kernel (1 1 1; 1 5 1; 1 1 1) / 13, whose outermost pixels stay."""
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    sums = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    smooth = images.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(sums.add_(inner, alpha=4).div_(13).add_(0.5).floor_())
    _blend(images, smooth, factor)


# Geometry: operations turn the identity into the way from output to input. Shape: (B, 2, 3), in place, (B,).


def rotate(matrices: Tensor, degrees: Tensor, height: int, width: int) -> None:
    """Turn counterclockwise about the center."""
    center_x, center_y = width / 2, height / 2
    cosine, sine = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    # The map goes from output to input, so it turns the other way.
    x = torch.stack([cosine, -sine, center_x - cosine * center_x + sine * center_y], dim=1)
    y = torch.stack([sine, cosine, center_y - sine * center_x - cosine * center_y], dim=1)
    torch.stack([x, y], dim=1, out=matrices)


def shear_x(matrices: Tensor, slope: Tensor, height: int, width: int) -> None:
    """Row y takes its pixels from `slope * y` further right."""
    matrices[:, 0, 1] = slope


def shear_y(matrices: Tensor, slope: Tensor, height: int, width: int) -> None:
    """Column x takes its pixels from `slope * x` further down."""
    matrices[:, 1, 0] = slope


def translate_x(matrices: Tensor, fraction: Tensor, height: int, width: int) -> None:
    """Take pixels from `fraction` of the width further right."""
    matrices[:, 0, 2] = fraction * width


def translate_y(matrices: Tensor, fraction: Tensor, height: int, width: int) -> None:
    """Take pixels from `fraction` of the height further down."""
    matrices[:, 1, 2] = fraction * height


def affine(images: Tensor, matrices: Tensor) -> None:
    """Pixel (x, y) becomes the one under matrix @ (x + 1/2, y + 1/2, 1), or black where there is none.

    Shape: (B, C, H, W), in place, (B, 2, 3). Positions count from the top left corner.
    """
    batch, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device) + 0.5
    rows = torch.arange(height, device=images.device).unsqueeze(1) + 0.5
    weights = matrices[..., None, None]
    x = (weights[:, 0, 0] * columns + weights[:, 0, 1] * rows).add_(weights[:, 0, 2]).floor_()
    y = (weights[:, 1, 0] * columns + weights[:, 1, 1] * rows).add_(weights[:, 1, 2]).floor_()
    # What lies outside is taken from a black border of one pixel.
    x.clamp_(-1, width).add_(1)
    source = y.clamp_(-1, height).add_(1).mul_(width + 2).add_(x).long().view(batch, 1, -1)
    bordered = functional.pad(images, (1, 1, 1, 1)).flatten(2)
    torch.gather(bordered, 2, source.expand(-1, channels, -1), out=images.view(batch, channels, -1))


class Augmentation(NamedTuple):
    """An operation on pixels, or on where they come from (geometry), and the range of its uniform amount."""

    operation: Callable[..., None]
    low: float
    high: float
    geometric: bool = False


def unchanged(images: Tensor, _: Tensor) -> None:
    """Leave the images as they are."""


# The fourteen operations of the SCAN and ScanMix augmentation. Geometric ranges are symmetric, so their sign is
# random; the four blends only ever weaken.
AUGMENTATIONS = (
    Augmentation(unchanged, 0, 0),
    Augmentation(autocontrast, 0, 0),
    Augmentation(equalize, 0, 0),
    Augmentation(rotate, -30, 30, geometric=True),
    Augmentation(solarize, 0, 256),
    Augmentation(posterize, 4, 8),
    Augmentation(color, 0.05, 0.95),
    Augmentation(contrast, 0.05, 0.95),
    Augmentation(brightness, 0.05, 0.95),
    Augmentation(sharpness, 0.05, 0.95),
    Augmentation(shear_x, -0.1, 0.1, geometric=True),
    Augmentation(shear_y, -0.1, 0.1, geometric=True),
    Augmentation(translate_x, -0.1, 0.1, geometric=True),
    Augmentation(translate_y, -0.1, 0.1, geometric=True),
)


def draw_augmentations(batch: int, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` operations for each image, with replacement, and their amounts as shares of the range.

    Shape: -> (B, R) places in `AUGMENTATIONS`, (B, R) in 0..1.
    """
    size, device = (count, batch), generator.device
    choices = torch.randint(len(AUGMENTATIONS), size, generator=generator, device=device)
    return choices.T, torch.rand(size, generator=generator, device=device).T


def augment(images: Tensor, choices: Tensor, shares: Tensor) -> Tensor:
    """Change every image by the operations that were drawn for it, one after the other.

    RandAugment (Cubuk et al., arXiv:1909.13719) as SCAN changed it (Van Gansbeke et al., arXiv:2005.12320): every
    amount is drawn anew, not one for all. Shape: (B, C, H, W) uint8, (B, R), (B, R) -> (B, C, H, W) float32.
    """
    ranges = torch.tensor([(low, high) for _, low, high, _ in AUGMENTATIONS], device=shares.device)
    low, high = ranges[choices].unbind(dim=-1)
    amounts = (low + shares * (high - low)).to(images.device)
    # Geometry comes last, so that one call moves all of its images.
    kinds = sorted(range(len(AUGMENTATIONS)), key=lambda kind: AUGMENTATIONS[kind].geometric)
    operations = [AUGMENTATIONS[kind] for kind in kinds]
    rank = torch.tensor(kinds, device=choices.device).argsort()
    order = rank[choices].argsort(dim=0, stable=True).to(images.device)
    # The sizes of all groups of all rounds come to the host at once: one wait, however many rounds.
    sizes = functional.one_hot(choices, len(kinds)).sum(dim=0)[:, kinds].tolist()
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    spare = torch.empty_like(pixels)
    place = torch.arange(len(images), device=images.device)  # of each image in a round that is sorted by operation
    for amount, sequence, split in zip(amounts.T, order.T, sizes, strict=True):
        torch.index_select(pixels, 0, place[sequence], out=spare)
        pixels, spare = spare, pixels
        _change(operations, pixels, amount[sequence], split)
        place = sequence.argsort()
    return torch.index_select(pixels, 0, place, out=spare)


def _change(sequence: list[Augmentation], images: Tensor, amounts: Tensor, sizes: list[int]) -> None:
    """Apply a sequence of operations, each to so many images, side by side; the geometric ones are the last."""
    matrices = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    still = sum(size for (*_, geometric), size in zip(sequence, sizes, strict=True) if not geometric)
    groups = zip(sequence, images.split(sizes), matrices.split(sizes), amounts.split(sizes), strict=True)
    for (operation, _, _, geometric), group, moves, amount in groups:
        if len(group) and geometric:
            operation(moves, amount, *images.shape[2:])
        elif len(group):
            operation(group, amount)
    if still < len(images):
        affine(images[still:], matrices[still:])


def draw_holes(batch: int, max_side: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw the holes of Cutout: half of the side, and the center. Shape: -> (B,), (B, 2) row and column.

    The side is uniform over 1..max_side, the center over all pixels.
    """

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (batch,), generator=generator, device=generator.device)

    half = draw(1, max_side + 1) // 2
    return half, torch.stack([draw(0, height), draw(0, width)], dim=1)


def cutout(images: Tensor, half: Tensor, center: Tensor) -> Tensor:
    """Set a square hole of every image to 0 in place: the mean color, once images are normalized.

    The hole reaches `half` pixels (B,) to both sides of its `center` (B, 2), cut at the border: its length is even, and
    a side of 1 is no hole (as in the ScanMix code; Cutout itself: DeVries and Taylor, arXiv:1708.04552).
    """
    height, width = images.shape[2:]
    half, center = half.to(images.device).unsqueeze(1), center.to(images.device)
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= center[:, :1] - half) & (rows < center[:, :1] + half)
    in_columns = (columns >= center[:, 1:] - half) & (columns < center[:, 1:] + half)
    kept = 1 - in_rows.float().unsqueeze(2) * in_columns.float().unsqueeze(1)  # numbers are quicker than a mask
    return images.mul_(kept.unsqueeze(1))
