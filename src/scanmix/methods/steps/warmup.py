"""Warm-up: a network learns all given labels, before they are divided (ScanMix Algorithm 1; DivideMix).

Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.losses import confidence_penalty
from scanmix.distributed.meter import Meter
from scanmix.networks.inference import inference
from scanmix.networks.peer import Peer

TrainedPart: TypeAlias = Literal["head", "network"]
"""The classifier alone, or encoder and classifier."""


def warm_up(
    peer: Peer,
    part: TrainedPart,
    steps: Iterable[tuple[Tensor, Tensor]],
    rate: float,
    confidence_weight: float,
    meter: Meter,
) -> None:
    """Take a step for each batch: cross-entropy, and the weighted confidence penalty (Pereyra et al. 2017).

    Args:
        peer: the network.
        part: `head` trains the classifier alone and leaves the features free of labels (batch norm is still
            updated by the views); `network` trains encoder and classifier.
        steps: batches of views and their labels, of each process its own rows. Shape: (B, C, H, W), (B,) int64.
        rate: learning rate of SGD.
        confidence_weight: weight of the penalty; 0 leaves cross-entropy alone.
        meter: takes each loss as `warmup/loss`.
    """
    for views, labels in steps:
        if part == "head":
            with inference(peer, batch_statistics=True):
                features = peer.encoder(views)
        else:
            peer.train()
            features = peer.encoder(views)
        logits, labels = peer.all_gather(peer.classifier(features)), peer.all_gather(labels)
        loss = F.cross_entropy(logits, labels) + confidence_weight * confidence_penalty(logits)
        meter.add("warmup", loss=loss)
        peer.step(loss, rate)
