"""An encoder without weights: `patches:COUNT`, how often patches of a picture look like each of some fixed filters.

Coates, Lee and Ng (AISTATS 2011) found that one layer of whitened patches, compared with patches drawn at random and
counted in each part of the picture, comes near to networks that are trained without labels. Here the patches are drawn
from what natural pictures have in common: neighboring pixels and the three colors are alike. So nothing is learned,
nothing is downloaded, and the same COUNT gives the same features everywhere.

Legend: B pictures, K filters, D numbers of a patch (6 x 6 pixels of 3 colors), c cells of a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.config import UserError
from scanmix.features.encoder import FrozenEncoder
from scanmix.features.preparation import Preparation

VERSION = 1
"""Part of the hash: it is raised when the same pictures get other features."""
SIDE, PATCH, CELLS = 32, 6, 3
"""Pixels of a picture's side and of a patch's; cells of a side, over whose 9 x 9 positions responses are averaged."""
LEAST, MOST = 2, 4096
ALIKE = 0.9
"""Correlation of neighboring pixels; it falls with the distance as its power."""
COLORS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
SPREAD = (2.6, 0.3, 0.1)
"""Directions of color, brightness first, and how much natural pictures vary along each."""
LEAST_CONTRAST = 0.04
"""Added to the deviation of a patch, of pixels from 0 to 1: ten shades of 256 are no contrast."""
LEAST_SPREAD = 0.1
"""Added to the spread along each direction before it is made 1, as noise has as much of it."""
THRESHOLD = 0.5
"""A response, of deviation 1, counts from here on."""
PREPARED = Preparation((SIDE, SIDE), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), interpolation="bilinear")
AT_ONCE = 8
"""Pictures whose responses are computed together: those of more leave the processor's cache, or their share of it."""


def open_patches(text: str, device: torch.device) -> FrozenEncoder:
    """Return the encoder with `text` filters, an even number; it returns 9 features for each of them.

    A picture and its mirror image have the same features.

    Raises:
        UserError: `text` is no even number from 2 to 4096.
    """
    count = int(text) if text.isascii() and text.isdecimal() else 0
    if not LEAST <= count <= MOST or count % 2:
        raise UserError(
            f"patches:{text} must have an even number of filters after the colon, {LEAST} to {MOST}, as in patches:256"
        )
    name = f"patches:{count}"
    weights = hashlib.sha256(f"{name} {VERSION}".encode()).hexdigest()  # rounding differs between machines
    return FrozenEncoder(name, name, weights, _network(filters(count).to(device)), PREPARED, None, device)


def open_sided_patches(count: int) -> FrozenEncoder:
    """Return an encoder on the CPU that tells a picture from its mirror image; it returns 18 features for each filter.

    Letters and arrows have sides. Of the `count` filters none is the mirror image of another.
    """
    answers, name = _answering(filters(2 * count)[:count]), f"sided patches:{count}"
    return FrozenEncoder(name, name, None, lambda pictures: answers(pictures).flatten(1), PREPARED)


def filters(count: int) -> Tensor:
    """Return filters of whitened patches; the second half are mirror images of the first. Shape: -> (K, 3, 6, 6)."""
    values, axes = torch.linalg.eigh(covariance())
    values = values.clamp(min=0)
    whitening = axes @ torch.diag((values + LEAST_SPREAD).rsqrt()) @ axes.T
    drawn = torch.randn(count // 2, len(values), generator=torch.Generator().manual_seed(0))
    patches = drawn @ axes @ torch.diag(values.sqrt()) @ axes.T
    half = F.normalize(patches @ whitening, dim=1).view(-1, 3, PATCH, PATCH)
    both = torch.cat([half, half.flip(-1)]).flatten(1)
    return torch.mm(both, whitening).view(-1, 3, PATCH, PATCH)


def covariance() -> Tensor:
    """Return the covariance of patches of natural pictures, with mean 0 and variance 1 over each. Shape: -> (D, D)."""
    row, column = torch.meshgrid(torch.arange(PATCH), torch.arange(PATCH), indexing="ij")
    places = torch.stack([row.flatten(), column.flatten()], 1).float()
    directions = F.normalize(torch.tensor(COLORS), dim=1)
    colors = directions.T @ torch.diag(torch.tensor(SPREAD)) @ directions
    together = torch.kron(colors, ALIKE ** torch.cdist(places, places))
    centering = torch.eye(len(together)) - 1 / len(together)
    together = centering @ together @ centering
    return together / together.diagonal().mean()


def _network(kernels: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what computes the features: (B, 3, 32, 32) of 0..1 -> (B, 9 K)."""
    answers = _answering(kernels)

    def features(pictures: Tensor) -> Tensor:
        one, mirrored = answers(pictures).chunk(2, 2)
        return (one + mirrored.flip(-1)).flatten(1)

    return features


def _answering(kernels: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what computes the answers of each filter: (B, 3, 32, 32) of 0..1 -> (B, 2, K, c, c)."""
    sums = kernels.sum((1, 2, 3)).view(-1, 1, 1)
    mean = torch.full_like(kernels[:1], 1 / kernels[0].numel())

    def answers(pictures: Tensor) -> Tensor:
        whole = torch.onnx.is_in_onnx_export()  # a graph in a file takes any B
        parts = (pictures,) if whole else pictures.split(AT_ONCE)
        return torch.cat([_answers(part, kernels, sums, mean) for part in parts])

    return answers


def _answers(pictures: Tensor, kernels: Tensor, sums: Tensor, mean: Tensor) -> Tensor:
    """Filter every patch, less its mean and over its deviation; average in cells what is above or below the threshold.

    Shape: (B, 3, 32, 32), (K, 3, 6, 6), (K, 1, 1), (1, 3, 6, 6) -> (B, 2, K, c, c).
    """
    center = F.conv2d(pictures, mean)
    deviation = (F.conv2d(pictures.square(), mean) - center.square()).clamp(min=0).sqrt() + LEAST_CONTRAST
    responses = F.conv2d(pictures, kernels).sub_(center * sums).div_(deviation)
    return torch.stack([_cells(responses - THRESHOLD), _cells(-responses - THRESHOLD)], 1)


def _cells(responses: Tensor) -> Tensor:
    """Return the mean of what is above 0 in each cell. Shape: (B, K, h, w) -> (B, K, c, c)."""
    count, side = responses.shape[1:3]
    width = side // CELLS
    return responses.relu_().view(-1, count, CELLS, width, CELLS, width).mean((3, 5))
