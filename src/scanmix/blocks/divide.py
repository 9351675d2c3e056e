"""Clean or noisy: a two-component mixture on per-example losses (ScanMix Eq. 8; DivideMix; Arazo et al. 2019).

Legend: N examples, P peers.
"""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

SMALLEST_SPREAD = 1e-6
"""Losses closer together than this hold no evidence: every example is then as clean as any other."""

Vector: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"


def normalize_losses(losses: Tensor) -> Tensor:
    """Scale losses to 0..1 by their minimum and maximum; equal losses all become 0. Shape: (N,) -> (N,).

    An infinite or missing loss counts as the largest finite one.
    """
    finite = losses.isfinite()
    if not bool(finite.any()):
        return torch.zeros_like(losses)
    low, high = losses[finite].min(), losses[finite].max()
    losses = torch.where(finite, losses, high)
    spread = high - low
    return (losses - low) / spread if spread > SMALLEST_SPREAD else torch.zeros_like(losses)


def clean_probability(losses: Tensor, max_iter: int = 10, tol: float = 1e-2, reg_covar: float = 5e-4) -> Tensor:
    """Posterior of the low-loss component of a two-component Gaussian mixture. Shape: (N,) -> (N,).

    Losses are normalized first. Each posterior is read at the loss clipped to the interval between the two
    means: outside it a wide component would win back the smallest or the largest losses, and p(clean) would
    not fall with the loss (between the means it always does). Where there is nothing to tell apart (fewer
    than two examples, equal losses, or both components at one place) every example gets 1. Defaults are
    DivideMix's.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    normalized = normalize_losses(losses.detach().double().cpu())
    if len(losses) < 2 or float(normalized.max()) == 0:
        return torch.ones(len(losses), device=losses.device)
    points = normalized.view(-1, 1).numpy()
    mixture = GaussianMixture(2, max_iter=max_iter, tol=tol, reg_covar=reg_covar, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are the published setting
        mixture.fit(points)
    clean, noisy = np.argsort(mixture.means_.ravel())
    low, high = mixture.means_[clean, 0], mixture.means_[noisy, 0]
    if high - low < SMALLEST_SPREAD:
        return torch.ones(len(losses), device=losses.device)
    posterior: Vector = mixture.predict_proba(points.clip(low, high))[:, clean]
    return torch.from_numpy(posterior).to(losses.device, torch.float32)


def clean_probabilities(losses: Tensor, labels: Tensor | None = None) -> Tensor:
    """`clean_probability` of each peer's losses; with `labels`, a mixture for each given label apart.

    Under one mixture a class that is harder than the others looks wrong as a whole: its labels are no longer
    learned from, it becomes harder still, and in the end it is never predicted.
    Shape: (P, N), (N,) int64 -> (P, N).
    """
    if labels is None:
        return torch.stack([clean_probability(row) for row in losses])
    p_clean = torch.empty(losses.shape, device=losses.device)
    for label in labels.unique():
        members = labels == label
        p_clean[:, members] = clean_probabilities(losses[:, members])
    return p_clean


def divide(p_clean: Tensor, threshold: float, minimum: int = 1) -> Tensor:
    """Return the mask of the clean set: p_clean > threshold, and never fewer than `minimum` examples.

    When the threshold leaves fewer, the `minimum` likeliest are taken instead, ties to the smaller index, so
    an epoch always has something labeled to learn from. Shape: (N,) -> (N,) bool.
    """
    clean = p_clean > threshold
    minimum = min(minimum, len(p_clean))
    if int(clean.sum()) >= minimum:
        return clean
    likeliest = p_clean.argsort(descending=True, stable=True)[:minimum]
    return torch.zeros_like(clean).index_fill_(0, likeliest, value=True)


def noise_rate(p_clean: Tensor, threshold: float) -> float:
    """Estimated share of wrong labels, |U| / |D| (paper section 4.2), the mean over peers. Shape: (P, N)."""
    return float((p_clean <= threshold).double().mean())
