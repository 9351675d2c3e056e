"""Progressive early stopping (Bai et al., NeurIPS 2021): later parts of a network, which memorize first, begin anew.

Legend: N examples, B batch, C classes.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.data.batches import TrainingData, labeled_views
from scanmix.distributed.meter import Meter
from scanmix.networks.encoders import Encoder
from scanmix.networks.inference import classify, inference
from scanmix.networks.peer import Peer

RefitPart: TypeAlias = Literal["head", "last stage"]
"""The classifier alone, or the last stage of the encoder with it."""


def last_layers(peer: Peer, part: RefitPart) -> nn.ModuleList:
    """Return that part of a peer, sharing weights."""
    stage = cast(Encoder, peer.encoder).last_stage() if part == "last stage" else []
    return nn.ModuleList([*stage, peer.classifier])


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
    """Give the part its fresh weights and teach it alone, by Adam, on all labels; the momentum of SGD is gone then.

    Statistics of batch norm follow the views everywhere.

    Args:
        peer: whose part it is.
        fresh: where the weights come from.
        part: which.
        passes: over all examples.
        rate: learning rate of Adam.
        batch_size: images in a step.
        data: what is learned from.
        meter: takes each loss as `refit/loss`.
    """
    own = last_layers(peer, part)
    own.load_state_dict(last_layers(fresh, part).state_dict())
    peer.optimizer.state.clear()
    peer.requires_grad_(requires_grad=False)
    adam = torch.optim.Adam(own.requires_grad_(requires_grad=True).parameters(), lr=rate)
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
    """Whether each label is the one predicted, by the mean of two random views. Shape: -> (N,) bool."""
    draws, network = data.generator("examine", epoch, "views"), classify(peer)

    def mean_of_two(index: Tensor) -> Tensor:
        views = data.sample_views(data.views.weak, (index, index), draws)
        return torch.stack([network(view).softmax(1) for view in views]).mean(0)

    with inference(peer, batch_statistics=False):
        said = torch.cat([mean_of_two(index) for index in data.everything.split(512)])
    return said.argmax(1) == data.labels
