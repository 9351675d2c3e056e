"""The same picture twice: exact copies, and near ones that were stored again, resized or brightened.

Legend: N images, B of them, P pairs, M groups or members.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

ALIKE = 0.995
"""Correlation from which two pictures count as one. Of the 1,797 8x8 digits no pair reaches it, of 20,000
Fashion-MNIST images three do; photographs stored again as JPEG of quality 75 do, all but one in twenty."""
THUMBNAIL = 32
"""Sides above are averaged down to at most this before pictures are compared."""
ROUGH = 8
"""Sides of the thumbnails by which pairs are ruled out."""
CHUNK = 256
"""Images compared at once with all after them: memory is CHUNK x N, never N x N."""

Tick = Callable[[int, int, str], None]


def exact_groups(*parts: Tensor) -> list[list[int]]:
    """Positions of images or vectors that are equal in every number, by groups of two or more, in order.

    Of several parts the positions are those in all of them, one after the other.
    Shape: (N, C, H, W) uint8 or float32 each -> M lists.
    """
    # Sixteen bytes stand for each image: nothing here grows with its pixels, and no two have ever been seen to collide.
    rows = (image for images in parts for some in images.split(4096) for image in some.contiguous().numpy())
    digests = b"".join(hashlib.blake2b(image, digest_size=16).digest() for image in rows)
    halves = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: copies stay in the order of the images
    new = (halves[order[1:]] != halves[order[:-1]]).any(1)
    bounds = np.concatenate([[0], np.flatnonzero(new) + 1, [len(order)]])
    several = np.flatnonzero(np.diff(bounds) > 1)  # of a million images few, we hope
    return sorted(order[bounds[group] : bounds[group + 1]].tolist() for group in several)


def near_groups(images: Tensor, tick: Tick | None = None) -> list[list[int]]:
    """Positions of images that are alike, by groups of two or more, in order; exact copies are left to `exact_groups`.

    Two images are alike if the pixels of their thumbnails, all channels together, correlate at `ALIKE` or more,
    so brightness and contrast do not count. What is alike to the same picture is one group. Of exact copies
    only the first is compared, and images of one color are alike to none. No pair is missed: the mean of
    blocks of pixels is a projection and cannot lengthen a difference, so what is too far apart there needs no
    closer look.

    Shape: (N, C, H, W) uint8 -> M lists.
    """
    again = {place for places in exact_groups(images) for place in places[1:]}
    first = torch.tensor([place for place in range(len(images)) if place not in again], dtype=torch.int64)
    rough = torch.cat([_rough(_thumbnails(images[part])) for part in first.split(4096)])
    group = torch.arange(len(first))
    for start in range(0, len(first), CHUNK):
        stop = min(start + CHUNK, len(first))
        rows = _thumbnails(images[first[start:stop]]).flatten(1)
        reach = _within_reach(rough[start:stop], rough[start:])
        columns = reach.any(0).nonzero().squeeze(1)
        # Pairs of one group need no look: of 50,000 frames of one scene only the first rows are compared with all.
        apart = group[start:stop, None] != group[start + columns]
        columns = start + columns[(reach[:, columns] & apart).any(0)]
        for part in columns.split(4096):
            alike = rows @ _thumbnails(images[first[part]]).flatten(1).T >= ALIKE
            left, right = alike.nonzero().unbind(1)
            group = _joined(group, start + left, part[right])
        if tick is not None:
            tick(stop, len(first), "")
    members: dict[int, list[int]] = {}
    for place, number in zip(first.tolist(), group.tolist(), strict=True):
        members.setdefault(number, []).append(place)
    return [places for places in members.values() if len(places) > 1]


def _thumbnails(images: Tensor) -> Tensor:
    """Averaged down, the mean taken off, at unit length; zero for an image of one color.

    Shape: (B, C, H, W) uint8 -> (B, C, h, w).
    """
    pooled = F.avg_pool2d(images.float(), [-(-side // THUMBNAIL) for side in images.shape[2:]])
    varied = pooled - pooled.mean((1, 2, 3), keepdim=True)
    return varied / varied.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def _rough(thumbnails: Tensor) -> Tensor:
    """Coordinates on the orthonormal vectors that are constant on a block of pixels. Shape: (B, C, h, w) -> (B, d)."""
    high, wide = (-(-side // ROUGH) for side in thumbnails.shape[2:])
    return (F.avg_pool2d(thumbnails, (high, wide)) * math.sqrt(high * wide)).flatten(1)


def _within_reach(rows: Tensor, others: Tensor) -> Tensor:
    """Whether the distance of two projections leaves room for a correlation of `ALIKE`.

    Unit vectors a and b have |a - b|^2 / 2 = 1 - correlation, and projections of them are no further apart.
    Shape: (B, d), (N, d) -> (B, N) bool.
    """
    half = others.square().sum(1) / 2
    nearness = torch.addmm(-half, rows, others.T)  # |a|^2 / 2 - |a - b|^2 / 2
    enough = rows.square().sum(1, keepdim=True) / 2 - (1 - ALIKE) - 1e-5  # rounding must not lose a pair
    return nearness >= enough


def _joined(group: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Give the groups of each pair one number. Shape: (N,), (P,), (P,) -> (N,)."""
    edges = (np.ones(len(left), dtype=bool), (group[left].numpy(), group[right].numpy()))
    _, joined = connected_components(coo_matrix(edges, shape=(len(group),) * 2), directed=False)
    return torch.from_numpy(joined)[group]
