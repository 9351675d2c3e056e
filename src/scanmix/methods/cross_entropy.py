"""Cross-entropy on the given labels: the baseline that every other method has to beat. Legend: B batch."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrossEntropy:
    """Ordinary training; defaults are the shared CIFAR settings of DivideMix's comparison."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "learns every label as it is: the baseline",
        "Run it once, to know what the other methods gain. With many wrong labels its accuracy rises, then falls\n"
        "as it memorizes them: compare best and last.",
        group="losses",
        measured=True,
    )
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        return Networks([peer])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once, with their given labels."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                loss = F.cross_entropy(logits, peer.all_gather(data.labels[index]))
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}
