"""Cross-entropy on the given labels: the control that every other method has to beat. Legend: B batch."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass

from scanmix.blocks.schedules import step_decay
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, classify
from scanmix.networks.peer import Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrossEntropy:
    """Ordinary training; defaults are the shared CIFAR settings of DivideMix's comparison."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    about: ClassVar[About] = About(
        "believes every label: the control",
        "Run it once, to know what the others are worth. With many wrong labels its accuracy rises, then falls\n"
        "as it learns them by heart: compare best and last.",
    )

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
        """One pass over all examples with their given labels."""
        (peer,) = state.peers
        meter = Meter()
        drop = data.epochs_in(self.lr_drop, self.batch_size, self.epochs)
        rate = step_decay(self.learning_rate, 0.1, epoch, (drop,))
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                loss = F.cross_entropy(logits, peer.all_gather(data.labels[index]))
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}

    def predictor(self, state: Networks) -> Predictor:
        """Return the network itself."""
        return Predictor([classify(peer) for peer in state.peers])
