"""Noise that depends on the image (Xia et al. 2020, "Part-dependent label noise", Algorithm 2).

Legend: N examples, S pixel values of an image, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError

SPREAD = 0.1
"""Standard deviation of the flip rates around the one asked for."""


def instance_dependent(images: Tensor, labels: Tensor, rate: float, num_classes: int, seed: int) -> Tensor:
    """Draw a flip rate for each image, and its noisy label by the pixels of the image and its class.

    The flip rates q are normal around `rate`, cut to 0..1. An image x of class y gets the label c != y with probability
    q * softmax(x W_y)_c, where the softmax leaves out y; W_y (S, C) is drawn from a standard normal distribution.
    Images are standardized first and x W_y is divided by the root of S; without that, one class would get nearly all
    flips. Shape: (N, ...), (N,) int64 -> (N,) int64.

    Args:
        images: the images.
        labels: their labels.
        rate: mean flip rate, 0..1.
        num_classes: C.
        seed: seed of all draws.

    Raises:
        UserError: if the rate is outside 0..1 or there is only one class.
    """
    if not 0.0 <= rate <= 1.0:
        raise UserError(f"a noise rate must lie between 0 and 1, not {rate}.")
    if num_classes < 2:
        raise UserError("instance noise needs at least two classes.")
    flips = cut_normal(rate, len(labels), np.random.default_rng([seed, 0]))
    chance = np.random.default_rng([seed, 1]).random(len(labels))
    mean, deviation = _statistics(images)
    truth, noisy = labels.numpy(), labels.numpy().copy()
    for label in range(num_classes):
        members = np.flatnonzero(truth == label)
        weights = np.random.default_rng([seed, 2, label]).standard_normal((images[0].numel(), num_classes))
        for part in np.array_split(members, max(1, len(members) // 1024)):
            inputs = (images[part].flatten(1).double().numpy() - mean) / deviation / np.sqrt(len(weights))
            scores = inputs @ weights
            scores[:, label] = -np.inf
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares *= flips[part, None] / shares.sum(1, keepdims=True)
            shares[:, label] = 1 - flips[part]
            drawn = (shares.cumsum(1) < chance[part, None]).sum(1)
            noisy[part] = np.minimum(drawn, num_classes - 1)  # rounding may leave the sum of shares below 1
    return torch.from_numpy(noisy)


def cut_normal(mean: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw from the normal distribution around `mean`; values outside 0..1 are drawn again. Shape: -> (count,)."""
    drawn = rng.normal(mean, SPREAD, count)
    while (outside := (drawn < 0) | (drawn > 1)).any():
        drawn[outside] = rng.normal(mean, SPREAD, int(outside.sum()))
    return drawn


def _statistics(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of all pixel values of all images, computed by chunks in float64."""
    total, square, count = 0.0, 0.0, 0
    for chunk in images.split(4096):
        values = chunk.double()
        total, square, count = total + float(values.sum()), square + float(values.square().sum()), count + chunk.numel()
    mean = total / count
    return mean, max(square / count - mean**2, 1e-12) ** 0.5
