"""One step of MixMatch as DivideMix uses it: two peers guess targets for views, which are mixed up.

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
    """What one training step sees after MixUp: the first `num_labeled` targets count as labeled.

    Of several processes each has its own inputs; targets and their count are those of the whole batch.
    """

    inputs: Tensor
    targets: Tensor
    num_labeled: int


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
    with inference(peer, batch_statistics=batch_statistics):
        own = peer.classifier(peer.encoder(inputs)).softmax(1)
    own_labeled, own_unlabeled = own[: num_views * count], own[num_views * count :]
    target = refine(own_labeled.view(num_views, count, -1).mean(0), labels, p_clean, temperature)
    targets = [target] * num_views
    if len(own_unlabeled):
        with inference(other, batch_statistics=False):
            others = other.classifier(other.encoder(inputs[num_views * count :])).softmax(1)
        by_view = torch.cat([own_unlabeled, others]).view(2 * num_views, -1, own.shape[1])
        targets += [guess(by_view, temperature)] * num_views
    mixed_inputs, mixed_targets = mixup(inputs, torch.cat(targets), alpha, generator)
    return Mixed(mixed_inputs, peer.all_gather(mixed_targets), num_views * count * peer.engine.world)
