"""Duplicate images: exact copies, and near copies that were stored again, resized or brightened.

Legend: N images, B of them, P pairs, M groups.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from scanmix.progress import Tick

ALIKE = 0.995
"""Correlation from which on two images count as near copies. No pair of the 1,797 8x8 digits reaches it, and three
pairs of 20,000 Fashion-MNIST images do. Of photographs stored again as JPEG of quality 75, all but one in twenty do."""
THUMBNAIL = 32
"""Largest side in pixels of the thumbnails that are compared; larger images are averaged down to it."""
ROUGH = 8
"""Largest side in pixels of the coarser thumbnails by which most pairs are ruled out."""
CHUNK = 256
"""Images that are compared at once with all later ones. Memory grows with CHUNK x N, never with N x N."""


def exact_groups(*parts: Tensor) -> list[list[int]]:
    """Return the positions of images or vectors that are equal in every number, in groups of two or more, in order.

    Several parts are searched together; positions then count through all of them, one after the other.
    Shape: (N, C, H, W) uint8 or float32 each -> M lists.
    """
    return equal_rows(np.concatenate([np.empty((0, 2), np.uint64), *map(row_digests, parts)]))


def row_digests(images: Tensor, tick: Tick | None = None) -> np.ndarray:
    """Return a hash of 128 bits of each image or vector, as two numbers; `tick` is told how many are done.

    Memory does not grow with the pixels. Two different images with the same 128 bits are too unlikely to matter.
    Shape: (N, C, H, W) uint8 or float32 -> (N, 2) uint64.
    """
    digests = bytearray()
    for start in range(0, len(images), 4096):
        some = images[start : start + 4096].contiguous().numpy()
        digests += b"".join(hashlib.blake2b(image, digest_size=16).digest() for image in some)
        if tick is not None:
            tick(start + len(some), len(images), "")
    return np.frombuffer(bytes(digests), dtype=np.uint64).reshape(-1, 2)


def equal_rows(digests: np.ndarray) -> list[list[int]]:
    """Return the positions of equal rows, in groups of two or more, in order. Shape: (N, 2) -> M lists."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: copies stay in the order of the images
    new = (digests[order[1:]] != digests[order[:-1]]).any(1)
    bounds = np.concatenate([[0], np.flatnonzero(new) + 1, [len(order)]])
    several = np.flatnonzero(np.diff(bounds) > 1)
    return sorted(order[bounds[group] : bounds[group + 1]].tolist() for group in several)


def near_groups(images: Tensor, tick: Tick | None = None) -> list[list[int]]:
    """Return the positions of images that are near copies of each other, in groups of two or more, in order.

    Two images are near copies if the pixels of their thumbnails, all channels together, correlate at `ALIKE` or more,
    so brightness and contrast do not count. Images that are near copies of the same image are one group. Of exact
    copies, which `exact_groups` finds, only the first is compared. An image of one color has no near copy.

    The coarse thumbnails miss no pair: averaging blocks of pixels is a projection and cannot make a distance larger,
    so two images that are too far apart there are too far apart. The time can grow with N x N.

    Shape: (N, C, H, W) uint8 -> M lists.

    Args:
        images: the images.
        tick: called with the number of images that have been compared with all later ones.
    """
    copies = {place for places in exact_groups(images) for place in places[1:]}
    first = torch.tensor([place for place in range(len(images)) if place not in copies], dtype=torch.int64)
    rough = torch.cat([_rough(_thumbnails(images[part])) for part in first.split(4096)])
    group = torch.arange(len(first))
    for start in range(0, len(first), CHUNK):
        stop = min(start + CHUNK, len(first))
        rows = _thumbnails(images[first[start:stop]]).flatten(1)
        reach = _within_reach(rough[start:stop], rough[start:])
        columns = reach.any(0).nonzero().squeeze(1)
        # Pairs that are in one group already are not compared: this saves most of the work where thousands of images
        # are near copies of each other, as the frames of one scene.
        apart = group[start:stop, None] != group[start + columns]
        columns = start + columns[(reach[:, columns] & apart).any(0)]
        for part in columns.split(4096):
            alike = rows @ _thumbnails(images[first[part]]).flatten(1).T >= ALIKE
            left, right = alike.nonzero().unbind(1)
            group = _merged(group, start + left, part[right])
        if tick is not None:
            tick(stop, len(first), "")
    members: dict[int, list[int]] = {}
    for place, number in zip(first.tolist(), group.tolist(), strict=True):
        members.setdefault(number, []).append(place)
    return [places for places in members.values() if len(places) > 1]


def _thumbnails(images: Tensor) -> Tensor:
    """Average images down, subtract the mean and scale to length 1; an image of one color becomes zero.

    Shape: (B, C, H, W) uint8 -> (B, C, h, w).
    """
    pooled = F.avg_pool2d(images.float(), [-(-side // THUMBNAIL) for side in images.shape[2:]])
    varied = pooled - pooled.mean((1, 2, 3), keepdim=True)
    return varied / varied.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def _rough(thumbnails: Tensor) -> Tensor:
    """Project on the orthonormal vectors that are constant on a block of pixels. Shape: (B, C, h, w) -> (B, d)."""
    high, wide = (-(-side // ROUGH) for side in thumbnails.shape[2:])
    return (F.avg_pool2d(thumbnails, (high, wide)) * math.sqrt(high * wide)).flatten(1)


def _within_reach(rows: Tensor, others: Tensor) -> Tensor:
    """Whether two projections are close enough that their images may correlate at `ALIKE`.

    For unit vectors a and b, |a - b|^2 / 2 = 1 - correlation, and their projections are no further apart.
    Shape: (B, d), (N, d) -> (B, N) bool.
    """
    half = others.square().sum(1) / 2
    nearness = torch.addmm(-half, rows, others.T)  # |a|^2 / 2 - |a - b|^2 / 2
    enough = rows.square().sum(1, keepdim=True) / 2 - (1 - ALIKE) - 1e-5  # rounding must not lose a pair
    return nearness >= enough


def _merged(group: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Merge the groups of the two images of each pair: both get one number. Shape: (N,), (P,), (P,) -> (N,)."""
    edges = (np.ones(len(left), dtype=bool), (group[left].numpy(), group[right].numpy()))
    _, joined = connected_components(coo_matrix(edges, shape=(len(group),) * 2), directed=False)
    return torch.from_numpy(joined)[group]
