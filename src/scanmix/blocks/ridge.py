"""Ridge regression of labels on features, each image's own label left out: what a linear classifier says of its class.

Least squares on one-hot labels with a penalty, on principal components of the features. The prediction for an image
by the regression that has not seen its label has a closed form (Allen, Technometrics 1974), so that nothing is fitted
N times: with hat values h_i it is (f_i - h_i y_i) / (1 - h_i).

Legend: N examples, C classes, D features, P principal components.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.propagation import standardized

COMPONENTS = 128
"""Principal components that the regression sees, where there are so many."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties that are tried, as multiples of the mean eigenvalue of the components' squares."""
HIGHEST = 0.999
"""Hat values above this are lowered to it: such a row alone decides what is said of it."""
OVERSAMPLED, POWERS = 10, 4
"""Further directions and power iterations of the randomized decomposition."""


def principal_components(features: Tensor, generator: Generator, count: int = COMPONENTS) -> Tensor:
    """Return the first principal components of the unit rows, centered, by a randomized decomposition.

    Halko, Martinsson and Tropp (SIAM Review 2011), algorithm 4.4. Memory grows with N x D. Signs are arbitrary.
    Shape: (N, D) finite -> (N, P), P = min(`count`, N, D), columns orthogonal with mean 0, the widest first.
    """
    unit = F.normalize(features.float(), dim=1)
    unit = unit - unit.mean(0)
    basis, left, values, _ = _decomposed(unit, generator, count)
    components: Tensor = basis @ (left * values)[:, : min(count, *unit.shape)]
    return components


def principal_axes(centered: Tensor, generator: Generator, count: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Return the variances along the first principal axes and these axes, by the same decomposition, the widest first.

    Signs are arbitrary. Shape: (N, D) finite, columns with mean 0 -> (P,), (D, P), P = min(`count`, N, D).
    """
    wanted = min(count, *centered.shape)
    _, _, values, right = _decomposed(centered, generator, count)
    return values[:wanted].square() / len(centered), right[:wanted].T


def _decomposed(centered: Tensor, generator: Generator, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a basis of the widest directions of the rows and the singular values and vectors of the rows in it.

    Shape: (N, D) -> basis (N, W), left (W, W), values (W,), right (W, D), W = min(`count` + `OVERSAMPLED`, N, D).
    """
    width = min(count + OVERSAMPLED, *centered.shape)
    basis = torch.randn(centered.shape[1], width, generator=generator, device=generator.device).to(centered)
    basis = torch.linalg.qr(centered @ basis).Q
    for _ in range(POWERS):
        basis = torch.linalg.qr(centered @ torch.linalg.qr(centered.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ centered, full_matrices=False)
    return basis, left, values, right


def ridge_scores(components: Tensor, class_probs: Tensor, used: Tensor | None = None) -> Tensor:
    """Return how far each class stands above its mean in the regression that has not seen the example's own row.

    The penalty is the one of `PENALTIES` with the least squared error of what is left out. Where `used` is given, only
    those rows are learned from; the others are predicted as they are. Columns then get mean 0 and standard deviation
    1, and a constant column gets zeros. Memory grows with N x (P + C).
    Shape: (N, P), (N, C) rows of probabilities, (N,) bool -> (N, C).
    """
    known = slice(None) if used is None else used
    targets = class_probs[known]
    count, mean = len(targets), targets.mean(0)
    if count < 2:
        return torch.zeros_like(class_probs)
    centered = components - components[known].mean(0)
    rows = centered[known]
    values, axes = torch.linalg.eigh((rows.T @ rows).double())
    values, turned = values.clamp(min=0), centered @ axes.to(centered)
    rows = turned[known]
    moments = rows.T @ (targets - mean)
    best = torch.zeros_like(class_probs), torch.inf
    for penalty in PENALTIES:
        inverse = (values + penalty * values.mean()).clamp(min=torch.finfo(rows.dtype).tiny).reciprocal().to(rows)
        weights = inverse.unsqueeze(1) * moments
        hat = (1 / count + rows.square() @ inverse).clamp(max=HIGHEST).unsqueeze(1)
        left_out = (rows @ weights + mean - hat * targets) / (1 - hat)
        error = float((left_out - targets).square().mean())
        if error < best[1]:
            predicted = turned @ weights + mean
            predicted[known] = left_out
            best = predicted, error
    return standardized(best[0])
