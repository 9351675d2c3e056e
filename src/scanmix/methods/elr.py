"""ELR, early-learning regularization (Liu et al., NeurIPS 2020). Legend: N examples, B batch, C classes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.robust import NO_ZERO, early_learning_term, running_targets
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class ELRState:
    """One network, and the running average of its predictions."""

    peers: list[Peer]
    targets: Tensor  # (N, C) running average of the predictions of each example
    p_clean: Tensor | None = None  # always None: ELR does not divide


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ELR:
    """Defaults are those of CIFAR-10 with symmetric noise, the optimizer that of cross-entropy."""

    State: ClassVar[type[ELRState]] = ELRState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "one network held to what it predicted before it memorized labels",
        "A strong method at the cost of `cross_entropy`. It needs some epochs in which labels are learned and not\n"
        "yet memorized. `regularization` is too strong if accuracy stays low and `learn/loss` is always below zero,\n"
        "and too weak if accuracy falls at the end.",
        "Liu et al., NeurIPS 2020", remembers=True, oracle="memory, regularization",
        group="regularization", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-3  # on all parameters
    memory: Share = 0.7  # beta: decay of a target's running average (0.9 for asymmetric noise and CIFAR-100)
    regularization: Weight = 3.0  # lambda (1 for asymmetric noise, 7 for CIFAR-100)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> ELRState:
        """Return one fresh network, and targets of zero."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        return ELRState([peer], torch.zeros(len(data), data.num_classes, device=engine.device))

    def epoch(self, state: ELRState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; the target of each is updated before it is used."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                targets = running_targets(state.targets[rows], logits, self.memory, NO_ZERO)
                state.targets[rows] = keep_given(targets, data.one_hot(rows), data.trusts(rows))
                fit = F.cross_entropy(logits, data.labels[rows])
                term = early_learning_term(logits, state.targets[rows])
                loss = fit + self.regularization * term  # may fall below zero
                meter.add("learn", loss=loss, cross_entropy=fit, regularization=term)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}
