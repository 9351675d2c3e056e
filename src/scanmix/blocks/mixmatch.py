"""MixMatch as DivideMix uses it: co-refinement, co-guessing, sharpening and MixUp.

Legend: B batch, V views of each image, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Return p^(1/T), normalized (MixMatch, Berthelot et al. 2019, Eq. 7). Shape: (B, C) -> (B, C).

    A temperature T below 1 makes rows more certain. Rows must not be all zeros.
    """
    # Dividing by the largest first does not change the result, and small temperatures do not underflow.
    powered = (probs / probs.amax(1, keepdim=True)).pow(1 / temperature)
    return powered / powered.sum(1, keepdim=True)


def refine(probs: Tensor, labels: Tensor, p_clean: Tensor, temperature: float) -> Tensor:
    """Return DivideMix's co-refined labels: w * label + (1 - w) * prediction with w = p_clean, then sharpened.

    `probs` is the network's mean prediction over views, `labels` the given labels one-hot, `p_clean` in 0..1.
    Shape: (B, C), (B, C), (B,) -> (B, C).
    """
    weight = p_clean.unsqueeze(1)
    return sharpen(weight * labels + (1 - weight) * probs, temperature)


def guess(view_probs: Tensor, temperature: float) -> Tensor:
    """Return DivideMix's co-guessed labels: the mean prediction of all networks on all views, sharpened.

    Shape: (V, B, C) -> (B, C).
    """
    return sharpen(view_probs.mean(0), temperature)


def mixup(
    inputs: Tensor, targets: Tensor, alpha: float, generator: Generator, *, dominant: bool = True
) -> tuple[Tensor, Tensor]:
    """Mix each row with a random row of the batch, with one weight for the batch (Zhang et al. 2018).

    The weight w is drawn from Beta(alpha, alpha). With `dominant` it is max(w, 1 - w), as in MixMatch, so that a row
    stays nearer to itself than to its partner. With alpha = 0 rows stay as they are.
    A generator on the CPU costs no synchronization. Shape: (B, ...), (B, C) -> (B, ...), (B, C).
    """
    weight, partner = partners(inputs, alpha, generator, dominant=dominant)
    mixed_inputs = torch.lerp(inputs.index_select(0, partner), inputs, weight)
    return mixed_inputs, torch.lerp(targets[partner], targets, weight)


def partners(inputs: Tensor, alpha: float, generator: Generator, *, dominant: bool = True) -> tuple[float, Tensor]:
    """Return the weight of `mixup`, and the row that each row is mixed with. Shape: (B, ...) -> (B,) int64."""
    weight = beta(alpha, generator)
    partner = torch.randperm(len(inputs), generator=generator, device=generator.device)
    return max(weight, 1 - weight) if dominant else weight, partner.to(inputs.device, non_blocking=True)


def within(partner: Tensor, group: Tensor) -> Tensor:
    """Return a permutation of the rows that keeps those of a group among themselves, drawn by a random one.

    Those outside of the group are kept among themselves, too. Costs no synchronization.
    Shape: (B,) int64, (B,) bool -> (B,) int64.
    """
    place, drawn = (~group).byte().argsort(stable=True), (~group)[partner].byte().argsort(stable=True)
    return torch.empty_like(partner).scatter_(0, place, partner[drawn])


def beta(alpha: float, generator: Generator) -> float:
    """Return one draw from Beta(alpha, alpha), in 0..1; 1, which means no mixing, for alpha = 0."""
    return float(betas(alpha, 1, generator))


def betas(alpha: float, count: int, generator: Generator) -> Tensor:
    """Return `count` draws from Beta(alpha, alpha), in 0..1; all are 1, which means no mixing, for alpha = 0.

    NumPy draws them, with a seed from `generator`; reading that of another device than the CPU is a synchronization.
    Shape: -> (count,).
    """
    if alpha == 0:
        return torch.ones(count, device=generator.device)
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    drawn = np.random.default_rng(int(seed)).beta(alpha, alpha, count)
    return torch.from_numpy(drawn).to(generator.device, torch.float32)
