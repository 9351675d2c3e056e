"""Decoupling "when to update" from "how to update" (Malach and Shalev-Shwartz, NeurIPS 2017). Legend: B batch."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass

from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Decoupling:
    """Two networks that learn where they disagree; optimizer as for cross-entropy."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "two networks that learn only where their predictions differ",
        "As the networks come to agree it learns less, and so memorizes later. It removes no wrong label.",
        "Malach and Shalev-Shwartz, NeurIPS 2017", networks=2, forward_backward=2, rows=2,
        group="selection", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    warmup: Duration = "3 epochs"  # in which both learn every example
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    least_share: Share = 0.1  # of the batch, over which the loss is averaged at least: few rows make a small step

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return two networks that differ by their initial weights."""
        return Networks(
            [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        )

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train both networks on all examples once; they see the same views."""
        meter = Meter()
        everywhere = epoch < data.epochs_in(self.warmup, self.batch_size, self.epochs)
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        for peer in state.peers:
            peer.train()
        with meter.timed("learn"):
            for index in map(state.peers[0].shard, batches(data.everything, self.batch_size, order)):
                views = data.views.weak(data.images[index], draws)
                a, b = (peer.logits(views) for peer in state.peers)
                rows = state.peers[0].all_gather(index)
                labels = data.labels[rows]
                differ = pinned((a.argmax(1) != b.argmax(1)) | everywhere, data.trusts(rows))
                count = differ.sum().clamp(min=self.least_share * len(labels))
                for peer, logits in zip(state.peers, (a, b), strict=True):
                    loss = (differ * F.cross_entropy(logits, labels, reduction="none")).sum() / count
                    meter.add("learn", loss=loss, differ=differ.float().mean())
                    peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}
