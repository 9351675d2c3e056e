"""MixMatch as DivideMix uses it: co-refinement, co-guessing, sharpening and MixUp.

Legend: B batch, V views of each image, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Raise probabilities to 1/temperature and normalize again. Shape: (B, C) -> (B, C)."""
    # Dividing by the largest first changes nothing but keeps tiny temperatures from underflowing.
    powered = (probs / probs.amax(1, keepdim=True)).pow(1 / temperature)
    return powered / powered.sum(1, keepdim=True)


def refine(probs: Tensor, labels: Tensor, p_clean: Tensor, temperature: float) -> Tensor:
    """Co-refinement: trust the given label as far as it is clean, the network for the rest; then sharpen.

    `probs` (B, C) is the network's mean over views, `labels` (B, C) the given labels one-hot, `p_clean` (B,).
    Shape: -> (B, C).
    """
    weight = p_clean.unsqueeze(1)
    return sharpen(weight * labels + (1 - weight) * probs, temperature)


def guess(view_probs: Tensor, temperature: float) -> Tensor:
    """Co-guessing: mean of the predictions of all networks on all views, sharpened. Shape: (V, B, C) -> (B, C)."""
    return sharpen(view_probs.mean(0), temperature)


def mixup(
    inputs: Tensor, targets: Tensor, alpha: float, generator: Generator, *, dominant: bool = True
) -> tuple[Tensor, Tensor]:
    """Convex combination of each row with a random other one, one weight for the batch (Zhang et al. 2018).

    The weight is Beta(alpha, alpha); with `dominant` (MixMatch) the larger of it and its complement, so that
    a row stays nearer to itself than to its partner. Shape: (B, ...), (B, C) -> (B, ...), (B, C).
    """
    weight = beta(alpha, generator)
    if dominant:
        weight = max(weight, 1 - weight)
    partner = torch.randperm(len(inputs), generator=generator, device=generator.device)
    mixed_inputs = torch.lerp(inputs.index_select(0, partner), inputs, weight)
    return mixed_inputs, torch.lerp(targets[partner], targets, weight)


def beta(alpha: float, generator: Generator) -> float:
    """One draw from Beta(alpha, alpha); alpha = 0 means no mixing, which is 1."""
    return float(betas(alpha, 1, generator))


def betas(alpha: float, count: int, generator: Generator) -> Tensor:
    """So many draws from Beta(alpha, alpha); alpha = 0 means no mixing, which is 1. Shape: -> (count,)."""
    if alpha == 0:
        return torch.ones(count, device=generator.device)
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    drawn = np.random.default_rng(int(seed)).beta(alpha, alpha, count)
    return torch.from_numpy(drawn).to(generator.device, torch.float32)
