"""What pictures are compared by where there is no pretrained network: patches, or pixels where pictures are small.

Legend: N pictures, B of a batch, D features of patches, P principal components.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.ridge import principal_axes
from scanmix.data.batches import AnyImages
from scanmix.features.encoder import FrozenEncoder
from scanmix.features.patch_encoder import open_sided_patches
from scanmix.progress import Tick

HELD = 1 << 24
"""Most pixels that are held in float32 at once: 64 MB, whatever the size of the images."""
SIDE = 12
"""Most rows and columns of pixels of which neighbors by pixels are found: class shows in the coarse picture."""
PATCHES_FROM = 24
"""Pixels of the shorter side from which patches are counted: smaller pictures have few patches of 6 x 6."""
FILTERS = 128
"""Of patches. Twice as many take twice the time and rank wrong labels hardly better."""
SAMPLED = 5000
"""Pictures that decide the principal components."""
MOST_IN_BATCH = 256
"""Pictures whose features of patches are held at once, besides those of the sample."""
POWER = 0.25
"""The components are divided by their variance to this power: 0 leaves the widest to decide, 0.5 makes all alike."""
LEAST_DEVIATION = 1e-3
"""Deviations of features below this are raised to it: real pictures have 0.02 or more."""
LEAST_VARIANCE = 1e-3
"""Components of less variance are left at zero: it is rounding. The features have variance 1 each."""


def image_features(images: AnyImages, tick: Tick | None = None) -> Tensor:
    """Return features in which pictures of a class are near each other by angle. Vectors, of one pixel, stay.

    Pictures of 24 pixels and more a side have features of patches (`of_patches`), smaller ones their pixels
    (`of_pixels`). `tick` is called with the number that is done.
    Shape: (N, channels, H, W) uint8 -> (N, P) float32, P = min(128, N), or (N, channels x side x side + 1) float32;
    (N, D, 1, 1) float32 -> (N, D).
    """
    if images[:1].is_floating_point():
        return torch.cat([part.flatten(1) for part in images.split(HELD)])
    if min(images.shape[2:]) < PATCHES_FROM or images.shape[1] not in (1, 3):
        return of_pixels(images, tick)
    return of_patches(images, tick)


def of_pixels(images: AnyImages, tick: Tick | None = None) -> Tensor:
    """Return pixels as features: each channel averaged to at most `SIDE` x `SIDE`.

    The mean of each image is subtracted, so that brightness does not count and, by angle, contrast neither: on digits,
    Fashion-MNIST, CIFAR-10 and photos of clothes more neighbors are of the same class so. A last column of ones is
    small beside any contrast; it makes images of one color, which would have no direction, neighbors of each other.
    Images are never all held in float at once.
    Shape: (N, channels, H, W) uint8 -> (N, channels x side x side + 1) float32.
    """
    side = min(SIDE, images.shape[2]), min(SIDE, images.shape[3])
    found = torch.ones(len(images), images.shape[1] * side[0] * side[1] + 1)
    rows = max(1, HELD // max(1, images[:1].numel()))
    for start in range(0, len(images), rows):
        small = F.adaptive_avg_pool2d(images[start : start + rows].cpu().float(), side).flatten(1)
        torch.sub(small, small.mean(1, keepdim=True), out=found[start : start + rows, :-1])
        if tick is not None:
            tick(min(start + rows, len(images)), len(images), "")
    return found


def of_patches(images: AnyImages, tick: Tick | None = None) -> Tensor:
    """Return features of patches (`features.patch_encoder`), on their principal components, the wide ones narrowed.

    A picture is brought to 32 x 32 pixels. Each feature gets mean 0 and deviation 1, the principal components of a
    sample are found, and each is divided by its variance to the power `POWER`. On Fashion-MNIST, CIFAR-10, photos of
    clothes and faces more neighbors are of the same class so than by the features as they are, or by pixels. The sample
    has a seed of its own. Memory grows with N x P, and features of patches are held of the sample and a batch alone.
    Shape: (N, 1 or 3, H, W) uint8 -> (N, P) float32, P = min(128, N).
    """
    encoder = open_sided_patches(FILTERS)
    order = torch.randperm(len(images), generator=Generator().manual_seed(0))
    sampled, others = order[:SAMPLED].sort().values, order[SAMPLED:].sort().values
    sample = torch.cat([features for _, features in _encoded(encoder, images, sampled, 0, tick)])
    mean, axes = narrowed_axes(sample)
    found = torch.empty(len(images), axes.shape[1])
    found[sampled] = (sample - mean) @ axes
    for rows, features in _encoded(encoder, images, others, len(sampled), tick):
        found[rows] = (features - mean) @ axes
    return found


def narrowed_axes(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and axes whose products with differences from it are narrowed components (`of_patches`).

    Shape: (N, D) -> (D,), (D, P), P = min(128, N, D).
    """
    mean, deviation = sample.mean(0), sample.std(0, correction=0).clamp(min=LEAST_DEVIATION)
    variances, axes = principal_axes((sample - mean) / deviation, Generator().manual_seed(0))
    scale = variances.pow(-POWER).where(variances > LEAST_VARIANCE, torch.zeros(()))
    return mean, axes * scale / deviation.unsqueeze(1)


def _encoded(
    encoder: FrozenEncoder, images: AnyImages, chosen: Tensor, done: int, tick: Tick | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the positions and the features of a batch of chosen pictures at a time; `done` are done before.

    Shape: (N, channels, H, W), positions -> (B,) int64, (B, D).
    """
    size = max(1, min(MOST_IN_BATCH, HELD // images[:1].numel()))
    for rows in chosen.split(size):
        yield rows, encoder.encode(images[rows].cpu())
        done += len(rows)
        if tick is not None:
            tick(done, len(images), "")
