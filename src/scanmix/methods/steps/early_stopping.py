"""Progressive early stopping (Bai et al., NeurIPS 2021): late layers, which memorize first, are trained again.

Legend: N examples, B batch, C classes.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.blocks.trust import pinned
from scanmix.data.batches import TrainingData, labeled_views
from scanmix.distributed.meter import Meter
from scanmix.methods.steps.warmup import warm_up
from scanmix.networks.encoders import Encoder
from scanmix.networks.inference import classify, inference
from scanmix.networks.peer import Peer

RefitPart: TypeAlias = Literal["head", "last stage"]
"""The classifier alone, or the last stage of the encoder and the classifier."""


def last_layers(peer: Peer, part: RefitPart) -> nn.ModuleList:
    """Return that part of a peer; it shares the weights."""
    stage = cast(Encoder, peer.encoder).last_stage() if part == "last stage" else []
    return nn.ModuleList([*stage, peer.classifier])


def early_epoch(peer: Peer, data: TrainingData, epoch: int, batch_size: int, rate: float) -> dict[str, float]:
    """Train by cross-entropy on all given labels for an epoch before the stop; return its numbers.

    `rate` is the learning rate of SGD.
    """
    meter = Meter()
    steps = labeled_views(data, data.views.weak, data.labels, batch_size, "warmup", epoch, peer.shard)
    with meter.timed("warmup"):
        warm_up(peer, "network", steps, rate, 0.0, meter)
    return meter.results() | {"rate/warmup": rate}


def reinit_and_refit(
    peer: Peer,
    fresh: Peer,
    part: RefitPart,
    passes: int,
    rate: float,
    batch_size: int,
    data: TrainingData,
    meter: Meter,
) -> None:
    """Reset a part of a network to fresh weights, and train it alone, by Adam, on all given labels.

    The momentum of SGD is dropped. Batch norm is updated in the whole network.

    Args:
        peer: the network.
        fresh: another network, whose weights the part gets.
        part: which part.
        passes: over all examples.
        rate: learning rate of Adam.
        batch_size: images of a step.
        data: examples with their given labels.
        meter: takes each loss as `refit/loss`.
    """
    layers = last_layers(peer, part)
    layers.load_state_dict(last_layers(fresh, part).state_dict())
    peer.optimizer.state.clear()
    peer.requires_grad_(requires_grad=False)
    adam = torch.optim.Adam(layers.requires_grad_(requires_grad=True).parameters(), lr=rate)
    stage = "refit" if part == "head" else "refit last stage"
    for number in range(passes):
        for views, labels in labeled_views(data, data.views.weak, data.labels, batch_size, stage, number, peer.shard):
            peer.train()
            logits = peer.logits(views)
            loss = F.cross_entropy(logits, peer.all_gather(labels))
            meter.add("refit", loss=loss)
            adam.zero_grad()
            peer.engine.backward(loss, peer)
            adam.step()
    peer.requires_grad_(requires_grad=True)


def agrees(peer: Peer, data: TrainingData, epoch: int) -> Tensor:
    """Return whether each given label is the prediction, which is the mean of two random views, or known to be right.

    Shape: -> (N,) bool.
    """
    draws, network = data.generator("examine", epoch, "views"), classify(peer)

    def mean_of_two(index: Tensor) -> Tensor:
        views = data.sample_views(data.views.weak, (index, index), draws)
        return torch.stack([network(view).softmax(1) for view in views]).mean(0)

    with inference(peer, batch_statistics=False):
        prediction = torch.cat([mean_of_two(index) for index in data.everything.split(512)])
    return pinned(prediction.argmax(1) == data.labels, data.trusted)
