"""Warm-up: a peer learns labels as they are, before anything is divided (ScanMix Algorithm 1; DivideMix).

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


def warm_up(
    peer: Peer,
    part: TrainedPart,
    seen: Iterable[tuple[Tensor, Tensor]],
    rate: float,
    confidence_weight: float,
    meter: Meter,
) -> None:
    """Step through cross-entropy and, weighed, the confidence penalty (Pereyra et al. 2017), once for each batch.

    Args:
        peer: who learns.
        part: `head` trains the classifier alone, on features that no label touches (batch statistics still
            follow the views); `network` trains encoder and classifier.
        seen: batches of views and their labels, of each process its own rows. Shape: (B, C, H, W), (B,) int64.
        rate: learning rate.
        confidence_weight: of the penalty; 0 leaves cross-entropy alone.
        meter: takes each loss as `warmup/loss`.
    """
    for views, labels in seen:
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
