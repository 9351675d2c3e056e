"""Clean or noisy: a two-component Gaussian mixture on per-sample losses (ScanMix Eq. 8; DivideMix, ICLR 2020).

Legend: N examples, P peers.
"""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

SMALLEST_SPREAD = 1e-6
"""Losses that differ by no more than this cannot be told apart: every example then counts as clean."""

Vector: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"


def normalize_losses(losses: Tensor) -> Tensor:
    """Scale losses to 0..1 by their minimum and maximum. Shape: (N,) -> (N,).

    Equal losses all become 0. An infinite loss or NaN counts as the largest finite one; without a finite loss all
    become 0.
    """
    finite = losses.isfinite()
    if not bool(finite.any()):
        return torch.zeros_like(losses)
    low, high = losses[finite].min(), losses[finite].max()
    losses = torch.where(finite, losses, high)
    spread = high - low
    return (losses - low) / spread if spread > SMALLEST_SPREAD else torch.zeros_like(losses)


def clean_probability(losses: Tensor, max_iter: int = 10, tol: float = 1e-2, reg_covar: float = 5e-4) -> Tensor:
    """Return the posterior of the low-loss component of a two-component Gaussian mixture. Shape: (N,) -> (N,) in 0..1.

    ScanMix Eq. 8; defaults are DivideMix's. Losses are normalized first (`normalize_losses`, also for NaN). Each
    posterior is that of the loss clipped to the interval between the two means: outside this interval the wider
    component would claim the smallest or largest losses, so that p(clean) would not fall as the loss rises. Every
    example gets 1 where nothing can be told apart: with fewer than two examples, equal losses, or equal means.
    The fit runs on the CPU in float64: one device synchronization, and memory that grows with N.

    Args:
        losses: a loss of each example, of its given label.
        max_iter: iterations of EM at most.
        tol: gain of the mean log-likelihood, in nats, below which EM stops.
        reg_covar: added to the variances of the normalized losses.
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


def clean_probabilities(losses: Tensor, labels: Tensor | None = None, reg_covar: float = 5e-4) -> Tensor:
    """Return `clean_probability` of each peer's losses; with `labels`, from one mixture for each given label.

    Under one mixture for all, a class that is harder than the others looks wrong as a whole: its labels are not
    trained on, it becomes harder still, and in the end it is never predicted. `reg_covar` as in `clean_probability`.
    Shape: (P, N), (N,) int64 -> (P, N) in 0..1.
    """
    if labels is None:
        return torch.stack([clean_probability(row, reg_covar=reg_covar) for row in losses])
    p_clean = torch.empty(losses.shape, device=losses.device)
    for label in labels.unique():
        members = labels == label
        p_clean[:, members] = clean_probabilities(losses[:, members], None, reg_covar)
    return p_clean


def divide(p_clean: Tensor, threshold: float, minimum: int = 1) -> Tensor:
    """Return the mask of the clean set: p_clean > threshold, but never fewer than `minimum` examples.

    When fewer pass the threshold, the `minimum` examples of largest p_clean are taken instead (of equal ones the
    smaller index), so that an epoch always has labeled examples. With N <= `minimum` all are taken.
    Costs a device synchronization. Shape: (N,) in 0..1 -> (N,) bool.
    """
    clean = p_clean > threshold
    minimum = min(minimum, len(p_clean))
    if int(clean.sum()) >= minimum:
        return clean
    cleanest = p_clean.argsort(descending=True, stable=True)[:minimum]
    return torch.zeros_like(clean).index_fill_(0, cleanest, value=True)


def noise_rate(p_clean: Tensor, threshold: float) -> float:
    """Return the estimated share of wrong labels, |U| / |D| (ScanMix section 4.2), as the mean over peers.

    Costs a device synchronization. Shape: (P, N) in 0..1 -> scalar in 0..1.
    """
    return float((p_clean <= threshold).double().mean())
