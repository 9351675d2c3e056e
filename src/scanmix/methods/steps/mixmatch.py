"""The inputs and targets of a step of MixMatch, as DivideMix uses it: both peers predict targets, MixUp follows.

Legend: B batch, V views of each image, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from scanmix.blocks.mixmatch import guess, mixup, refine
from scanmix.networks.inference import inference
from scanmix.networks.peer import Peer


class Mixed(NamedTuple):
    """Inputs and targets of a step after MixUp.

    Where several processes share a batch, each has its own inputs; the targets are those of all processes.
    """

    inputs: Tensor
    """(V (B_x + B_u), C, H, W) mixed views."""
    targets: Tensor
    """(V (B_x + B_u), classes) mixed targets; the first `num_labeled` rows are of labeled images."""
    num_labeled: int
    """V B_x, of all processes."""


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
    learned: Sequence[Tensor] | None = None,
) -> Mixed:
    """Return MixMatch(X', U') of Algorithm 1: targets by both peers for V views of each image, then MixUp.

    All rows that a network predicts go through it at once.

    Args:
        peer: the network in training. It predicts targets for labeled and unlabeled images.
        other: the other network. It predicts targets for unlabeled images, with running batch statistics.
        labeled: V views of the labeled images. Shape: (B_x, C, H, W) each.
        unlabeled: V views of the unlabeled images; they may have no rows. Shape: (B_u, C, H, W) each.
        labels: one-hot given labels of the labeled images. Shape: (B_x, classes).
        p_clean: probability that each of these labels is right. Shape: (B_x,).
        temperature: T of sharpening.
        alpha: of MixUp's Beta(alpha, alpha).
        generator: of MixUp's draws.
        batch_statistics: whether `peer` predicts with statistics of the batch, or with running ones.
        learned: V views of the labeled images, then V of the unlabeled ones, which are mixed in place of those that
            targets are predicted of. None: the same.
    """
    num_views, count = len(labeled), len(labels)
    inputs = torch.cat([*labeled, *unlabeled])
    with inference(peer, batch_statistics=batch_statistics):
        probabilities = peer.classifier(peer.encoder(inputs)).softmax(1)
    of_labeled, of_unlabeled = probabilities[: num_views * count], probabilities[num_views * count :]
    target = refine(of_labeled.view(num_views, count, -1).mean(0), labels, p_clean, temperature)
    targets = [target] * num_views
    if len(of_unlabeled):
        with inference(other, batch_statistics=False):
            of_other = other.classifier(other.encoder(inputs[num_views * count :])).softmax(1)
        by_view = torch.cat([of_unlabeled, of_other]).view(2 * num_views, -1, probabilities.shape[1])
        targets += [guess(by_view, temperature)] * num_views
    if learned is not None:
        inputs = torch.cat(list(learned))
    mixed_inputs, mixed_targets = mixup(inputs, torch.cat(targets), alpha, generator)
    return Mixed(mixed_inputs, peer.all_gather(mixed_targets), num_views * count * peer.engine.world)
