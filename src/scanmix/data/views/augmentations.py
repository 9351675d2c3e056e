"""RandAugment and Cutout on whole batches, with operations and amounts drawn for each image.

The usual transform runs image by image in Python. Here a batch is sorted by the drawn operations, so that each
operation has its images side by side and changes them in place with a few tensor calls, on the device of the images.

Pixels are whole numbers 0..255 in float32, rounded and clipped as Pillow does on bytes (`ImageOps`, `ImageEnhance`,
`Image.transform`). Images have color if C = 3; `color` leaves all others unchanged.
Legend: B batch, C channels, H height, W width, R operations an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional


def per_image(values: Tensor) -> Tensor:
    """Reshape one value an image to broadcast with a batch. Shape: (B,) -> (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


# Tone: a curve maps each pixel value to a new one.


def autocontrast(images: Tensor, _: Tensor) -> None:
    """Stretch each channel of each image to 0..255; a constant channel stays. Shape: (B, C, H, W), in place.

    The quotients are exact; those of Pillow, computed in floating point, are sometimes one level lower.
    """
    low = images.amin(dim=(2, 3), keepdim=True)
    span = images.amax(dim=(2, 3), keepdim=True).sub_(low)
    constant = span == 0
    images.sub_(low.masked_fill_(constant, 0)).mul_(255).div_(span.masked_fill_(constant, 255)).floor_()


def equalize(images: Tensor, _: Tensor) -> None:
    """Equalize the histogram of each channel of each image. Shape: (B, C, H, W), in place.

    A channel with fewer than 255 pixels below its brightest value stays, as in Pillow.
    """
    pixels = images.flatten(2).flatten(0, 1).long()
    one = torch.ones((), device=images.device).expand(pixels.shape)
    counts = torch.zeros(len(pixels), 256, device=images.device).scatter_add_(1, pixels, one)
    brightest = counts.gather(1, pixels.amax(dim=1, keepdim=True))
    step = (pixels.shape[1] - brightest).div_(255).floor_()
    below = counts.cumsum(dim=1).sub_(counts)
    curve = below.add_((step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(max=255)
    steps = (step > 0).float()
    curve.mul_(steps).add_(torch.arange(256, device=images.device) * (1 - steps))
    torch.gather(curve, 1, pixels, out=images.view(pixels.shape))


def solarize(images: Tensor, threshold: Tensor) -> None:
    """Invert the pixels at or above the threshold, 0..256. Shape: (B, C, H, W) in place, (B,)."""
    bright = images.clone().ge_(per_image(threshold))  # 0 or 1 as floats: multiplying with booleans is slow
    images.add_((255 - 2 * images).mul_(bright))


def posterize(images: Tensor, bits: Tensor) -> None:
    """Keep the highest `bits` bits, rounded down to whole bits. Shape: (B, C, H, W) in place, (B,)."""
    step = torch.exp2(8 - per_image(bits.floor()))
    images.div_(step).floor_().mul_(step)


# Enhancement: blends of the image (factor 1) and a degraded version of it (factor 0).


def _blend(images: Tensor, degraded: Tensor, factor: Tensor) -> None:
    images.sub_(degraded).mul_(per_image(factor)).add_(degraded).floor_().clamp_(0, 255)


def _gray_levels(images: Tensor) -> Tensor:
    """Return whole-number luma, computed in 16-bit fixed point as in Pillow. Shape: (B, C, H, W) -> (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True).add_(0.5).floor_()
    red, green, blue = images.unbind(dim=1)
    # Every sum stays below 2**24, so float32 holds it exactly.
    luma = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768)
    return luma.div_(65536).floor_().unsqueeze(1)


def color(images: Tensor, factor: Tensor) -> None:
    """Blend with the gray image; does nothing unless C = 3. Shape: (B, C, H, W) in place, (B,)."""
    if images.shape[1] == 3:
        _blend(images, _gray_levels(images), factor)


def contrast(images: Tensor, factor: Tensor) -> None:
    """Blend with the mean gray level of the image. Shape: (B, C, H, W) in place, (B,)."""
    _blend(images, _gray_levels(images).mean(dim=(1, 2, 3), keepdim=True).add_(0.5).floor_(), factor)


def brightness(images: Tensor, factor: Tensor) -> None:
    """Blend with black. Shape: (B, C, H, W) in place, (B,)."""
    images.mul_(per_image(factor)).floor_().clamp_(0, 255)


def sharpness(images: Tensor, factor: Tensor) -> None:
    """Blend with the image smoothed by the kernel (1 1 1; 1 5 1; 1 1 1) / 13, except for the outermost pixels.

    Shape: (B, C, H, W) in place, (B,).
    """
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    sums = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    smooth = images.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(sums.add_(inner, alpha=4).div_(13).add_(0.5).floor_())
    _blend(images, smooth, factor)


# Geometry: each operation changes an identity matrix into the map from output positions to input positions.


def rotate(matrices: Tensor, degrees: Tensor, height: int, width: int) -> None:
    """Turn counterclockwise about the center of height x width pixels. Shape: (B, 2, 3) in place, (B,)."""
    center_x, center_y = width / 2, height / 2
    cosine, sine = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    # The map goes from output to input, so it turns clockwise.
    x = torch.stack([cosine, -sine, center_x - cosine * center_x + sine * center_y], dim=1)
    y = torch.stack([sine, cosine, center_y - sine * center_x - cosine * center_y], dim=1)
    torch.stack([x, y], dim=1, out=matrices)


def shear_x(matrices: Tensor, slope: Tensor, height: int, width: int) -> None:
    """Take the pixels of row y from `slope * y` further right. Shape: (B, 2, 3) in place, (B,)."""
    matrices[:, 0, 1] = slope


def shear_y(matrices: Tensor, slope: Tensor, height: int, width: int) -> None:
    """Take the pixels of column x from `slope * x` further down. Shape: (B, 2, 3) in place, (B,)."""
    matrices[:, 1, 0] = slope


def translate_x(matrices: Tensor, fraction: Tensor, height: int, width: int) -> None:
    """Take pixels from `fraction` of the width further right. Shape: (B, 2, 3) in place, (B,)."""
    matrices[:, 0, 2] = fraction * width


def translate_y(matrices: Tensor, fraction: Tensor, height: int, width: int) -> None:
    """Take pixels from `fraction` of the height further down. Shape: (B, 2, 3) in place, (B,)."""
    matrices[:, 1, 2] = fraction * height


def affine(images: Tensor, matrices: Tensor) -> None:
    """Set pixel (x, y) to the input pixel that holds matrix @ (x + 1/2, y + 1/2, 1); black if that lies outside.

    Positions count from the top left corner. Shape: (B, C, H, W) in place, (B, 2, 3).
    """
    batch, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device) + 0.5
    rows = torch.arange(height, device=images.device).unsqueeze(1) + 0.5
    weights = matrices[..., None, None]
    x = (weights[:, 0, 0] * columns + weights[:, 0, 1] * rows).add_(weights[:, 0, 2]).floor_()
    y = (weights[:, 1, 0] * columns + weights[:, 1, 1] * rows).add_(weights[:, 1, 2]).floor_()
    # Positions outside are taken from a black border of one pixel.
    x.clamp_(-1, width).add_(1)
    source = y.clamp_(-1, height).add_(1).mul_(width + 2).add_(x).long().view(batch, 1, -1)
    bordered = functional.pad(images, (1, 1, 1, 1)).flatten(2)
    torch.gather(bordered, 2, source.expand(-1, channels, -1), out=images.view(batch, channels, -1))


class Augmentation(NamedTuple):
    """An operation on pixels, or on the matrices of a geometric one, and the range of its uniform amount."""

    operation: Callable[..., None]
    low: float
    high: float
    geometric: bool = False


def unchanged(images: Tensor, _: Tensor) -> None:
    """Do nothing. Shape: (B, C, H, W), (B,)."""


# The fourteen operations of the augmentation of SCAN and ScanMix. Geometric ranges are symmetric, so the sign is
# random; the factors of the four blends are below 1, so they only degrade.
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
    """Draw `count` operations for each of `batch` images, with replacement, and amounts as shares of the range.

    Shape: -> (B, R) positions in `AUGMENTATIONS`, (B, R) in 0..1.
    """
    size, device = (count, batch), generator.device
    choices = torch.randint(len(AUGMENTATIONS), size, generator=generator, device=device)
    return choices.T, torch.rand(size, generator=generator, device=device).T


def augment(images: Tensor, choices: Tensor, shares: Tensor) -> Tensor:
    """Apply to each image the operations that were drawn for it, one after the other; the input is not changed.

    This is RandAugment (Cubuk et al., arXiv:1909.13719) as SCAN changed it (Van Gansbeke et al., arXiv:2005.12320):
    each amount is drawn separately. Shape: (B, C, H, W) uint8, (B, R), (B, R) -> (B, C, H, W) float32.
    """
    ranges = torch.tensor([(low, high) for _, low, high, _ in AUGMENTATIONS], device=shares.device)
    low, high = ranges[choices].unbind(dim=-1)
    amounts = (low + shares * (high - low)).to(images.device, non_blocking=True)
    # Geometric operations are sorted last, so that one call of `affine` serves all of them.
    kinds = sorted(range(len(AUGMENTATIONS)), key=lambda kind: AUGMENTATIONS[kind].geometric)
    operations = [AUGMENTATIONS[kind] for kind in kinds]
    rank = torch.tensor(kinds, device=choices.device).argsort()
    order = rank[choices].argsort(dim=0, stable=True).to(images.device, non_blocking=True)
    # The host must know the sizes of the groups: a synchronization, unless the draws were made on the CPU.
    sizes = functional.one_hot(choices, len(kinds)).sum(dim=0)[:, kinds].tolist()
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    spare = torch.empty_like(pixels)
    place = torch.arange(len(images), device=images.device)  # position of each image in the current sorted order
    for amount, sequence, split in zip(amounts.T, order.T, sizes, strict=True):
        torch.index_select(pixels, 0, place[sequence], out=spare)
        pixels, spare = spare, pixels
        _change(operations, pixels, amount[sequence], split)
        place = sequence.argsort()
    return torch.index_select(pixels, 0, place, out=spare)


def _change(sequence: list[Augmentation], images: Tensor, amounts: Tensor, sizes: list[int]) -> None:
    """Apply each operation to its group of neighboring images, of these sizes; geometric operations come last."""
    matrices = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    start = sum(size for (*_, geometric), size in zip(sequence, sizes, strict=True) if not geometric)
    groups = zip(sequence, images.split(sizes), matrices.split(sizes), amounts.split(sizes), strict=True)
    for (operation, _, _, geometric), group, moves, amount in groups:
        if len(group) and geometric:
            operation(moves, amount, *images.shape[2:])
        elif len(group):
            operation(group, amount)
    if start < len(images):
        affine(images[start:], matrices[start:])


def draw_holes(batch: int, max_side: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw the holes of Cutout in pixels: half of the side, and the center. Shape: -> (B,), (B, 2) row and column.

    The side is uniform over 1..max_side, the center over all pixels.
    """

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (batch,), generator=generator, device=generator.device)

    half = draw(1, max_side + 1) // 2
    return half, torch.stack([draw(0, height), draw(0, width)], dim=1)


def cutout(images: Tensor, half: Tensor, center: Tensor) -> Tensor:
    """Set a square hole in each image to 0, which is the mean color of normalized images (Cutout).

    The hole reaches `half` pixels to both sides of its `center` and is cut at the border. Its side is even, and a drawn
    side of 1 makes no hole, as in the ScanMix code; Cutout itself is by DeVries and Taylor, arXiv:1708.04552.
    Shape: (B, C, H, W) in place, (B,), (B, 2) row and column -> the same images.
    """
    height, width = images.shape[2:]
    half, center = (drawn.to(images.device, non_blocking=True) for drawn in (half.unsqueeze(1), center))
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= center[:, :1] - half) & (rows < center[:, :1] + half)
    in_columns = (columns >= center[:, 1:] - half) & (columns < center[:, 1:] + half)
    # Multiplying with floats is faster than filling by a mask.
    kept = 1 - in_rows.float().unsqueeze(2) * in_columns.float().unsqueeze(1)
    return images.mul_(kept.unsqueeze(1))
