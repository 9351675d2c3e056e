"""Cross-entropy on the given labels: the control that every other method has to beat. Legend: B batch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.schedules import step_decay
from scanmix.config import STRICT, Batch, Count, Duration, Rate, Share, Weight, epochs_of
from scanmix.data.batches import TrainingData, batches
from scanmix.engine import Engine, Meter
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Peer, Predictor, classify, learning, make_peer


@dataclasses.dataclass
class CrossEntropyState:
    """One network."""

    peers: list[Peer]
    p_clean: Tensor | None = None  # always None: cross-entropy does not divide


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrossEntropy:
    """Ordinary training; defaults are the shared CIFAR settings of DivideMix's comparison."""

    State: ClassVar[type[CrossEntropyState]] = CrossEntropyState
    label_free: ClassVar[bool] = False

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> CrossEntropyState:
        """Return one fresh network."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        return CrossEntropyState([peer])

    def epoch(self, state: CrossEntropyState, data: TrainingData, epoch: int) -> dict[str, float]:
        """One pass over all examples with their given labels."""
        (peer,) = state.peers
        meter = Meter()
        drop = epochs_of(self.lr_drop, -(-len(data) // self.batch_size), self.epochs)
        rate = step_decay(self.learning_rate, 0.1, epoch, (drop,))
        order, draws = data.generators("learn", epoch, "order", "views")
        with meter.timed("learn"), learning(peer):
            for index in map(peer.own, batches(data.everything, self.batch_size, order)):
                logits = peer.classifier(peer.encoder(data.views.weak(data.images[index], draws)))
                loss = F.cross_entropy(peer.gather(logits), peer.gather(data.labels[index]))
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}

    def predictor(self, state: CrossEntropyState) -> Predictor:
        """Return the network itself."""
        return Predictor([classify(peer) for peer in state.peers])
