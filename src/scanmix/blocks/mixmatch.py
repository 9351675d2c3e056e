"""MixMatch as DivideMix uses it: co-refinement, co-guessing, sharpening and MixUp.

Legend: B batch, V views of each image, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from scanmix.networks.peer import Peer, guessing


class Mixed(NamedTuple):
    """What one training step sees after MixUp: the first `num_labeled` targets count as labeled.

    Of several processes each has its own inputs; targets and their count are those of the whole batch.
    """

    inputs: Tensor
    targets: Tensor
    num_labeled: int


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


def mixmatch(
    peer: Peer,
    other: Peer,
    labeled: Sequence[Tensor],
    unlabeled: Sequence[Tensor],
    labels: Tensor,
    p_clean: Tensor,
    temperature: float,
    alpha: float,
    generator: Generator,
    batch_statistics: bool,
) -> Mixed:
    """MixMatch(X', U') of Algorithm 1: targets from both peers for V views of each image, then MixUp over all rows.

    `labeled` and `unlabeled` are V tensors (B, C, H, W) each; `labels` one-hot and `p_clean` belong to the
    labeled images. `peer` refines and guesses with batch statistics or running ones, `other` guesses with its
    running ones; all rows that a network sees go through it at once. `unlabeled` may hold no rows.
    """
    num_views, count = len(labeled), len(labels)
    inputs = torch.cat([*labeled, *unlabeled])
    with guessing(peer, batch_statistics=batch_statistics):
        own = peer.classifier(peer.encoder(inputs)).softmax(1)
    own_labeled, own_unlabeled = own[: num_views * count], own[num_views * count :]
    target = refine(own_labeled.view(num_views, count, -1).mean(0), labels, p_clean, temperature)
    targets = [target] * num_views
    if len(own_unlabeled):
        with guessing(other, batch_statistics=False):
            others = other.classifier(other.encoder(inputs[num_views * count :])).softmax(1)
        by_view = torch.cat([own_unlabeled, others]).view(2 * num_views, -1, own.shape[1])
        targets += [guess(by_view, temperature)] * num_views
    mixed_inputs, mixed_targets = mixup(inputs, torch.cat(targets), alpha, generator)
    return Mixed(mixed_inputs, peer.gather(mixed_targets), num_views * count * peer.engine.world)


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
