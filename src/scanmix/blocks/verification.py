"""Does an image belong to the class of its label? CleanNet (Lee et al., CVPR 2018) in tensors.

Legend: N examples, B batch, C classes, K references of a class, D features.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

LLOYD_STEPS = 8
"""Iterations of k-means that place the references of a class."""


def compressed(features: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|), the scale on which features are compared. Shape: any -> the same."""
    return features.sign() * features.abs().log1p()


def class_references(features: Tensor, labels: Tensor, num_classes: int, k: int, generator: Generator) -> Tensor:
    """Return k centers of the features of each class, by k-means from random examples of it.

    A class of fewer examples has some of them repeatedly, and one without examples has zeros. It reads the labels on
    the host, so it is for once an epoch. Shape: (N, D), (N,) int64 -> (C, k, D).
    """
    found = features.new_zeros(num_classes, k, features.shape[1])
    for label in range(num_classes):
        rows = features[labels == label]
        if not len(rows):
            continue
        order = torch.randperm(len(rows), generator=generator, device=rows.device)
        centers = rows[order.repeat(-(-k // len(rows)))[:k]]
        for _ in range(LLOYD_STEPS):
            nearest = torch.cdist(rows, centers).argmin(1)
            sums = torch.zeros_like(centers).index_add_(0, nearest, rows)
            sizes = nearest.bincount(minlength=k).unsqueeze(1)
            centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)  # an empty center stays
        found[label] = centers
    return found


def verification_losses(similarity: Tensor, relevant: Tensor, negative_weight: float, margin: float) -> Tensor:
    """Return 1 - s for images that belong to the class, and weight * max(0, s - margin) for others (Eq. 3).

    s is the cosine of image and class. Shape: (B,) in -1..1, (B,) bool -> (B,).
    """
    return torch.where(relevant, 1 - similarity, negative_weight * (similarity - margin).clamp(min=0))
