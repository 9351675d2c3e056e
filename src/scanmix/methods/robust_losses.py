"""Losses that stop growing where a label looks wrong: generalized and symmetric cross-entropy.

Legend: B batch, C classes.
Both are as cheap as cross-entropy and know nothing of the noise. They keep nothing of an example, but for the truncated
loss of GCE, which keeps the examples that it counts.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import PROBABILITY_FLOOR
from scanmix.blocks.robust import generalized_cross_entropy, reverse_cross_entropy
from scanmix.blocks.trust import keep_given, pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RobustLoss:
    """One network that minimizes the mean of `losses`, with the schedule of both papers; here cross-entropy itself."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 120  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.01  # of SGD
    lr_drop: Duration = "40 epochs"  # when the learning rate is divided by ten, ...
    lr_second_drop: Duration = "80 epochs"  # ... and again
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; labels that are known to be right have plain cross-entropy.

        Where the state says which labels look right, the loss of the others counts as 0.
        """
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop, self.lr_second_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                plain = F.cross_entropy(logits, data.labels[rows], reduction="none")
                losses = keep_given(self.losses(logits, data.labels[rows], plain), plain, data.trusts(rows))
                if state.p_clean is not None:
                    losses = state.p_clean[0, rows] * losses
                loss = losses.mean()
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}

    def losses(self, logits: Tensor, labels: Tensor, cross_entropies: Tensor) -> Tensor:
        """Return the loss of each label. Shape: (B, C), (B,), (B,) -> (B,)."""
        return cross_entropies


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GCE(RobustLoss):
    """(1 - p_y^q) / q, Eq. 6, and with `truncate` the truncated loss, section 3.4. Defaults are those of CIFAR-10."""

    clean_threshold: ClassVar[float | None] = 0.5

    about: ClassVar[About] = About(
        "generalized cross-entropy: between cross-entropy and mean absolute error",
        "As cheap as `cross_entropy`, and slower to memorize. With many classes a smaller `power` is needed to learn\n"
        "at all.",
        "Zhang and Sabuncu, NeurIPS 2018",
        group="losses",
    )  # fmt: skip

    power: Rate = 0.7  # q: near 0 it is cross-entropy, at 1 mean absolute error
    truncate: Duration | None = None  # epochs before the truncated loss, never by default (paper: 40 epochs)
    least_probability: Share = 0.5  # k: the truncated loss is constant for labels of no larger probability
    decide_every: Count = 10  # epochs after which it is decided anew which labels those are

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; where that is decided anew, leave out labels of small probability (Algorithm 1).

        The network as it is decides, in place of the best one on validation images.
        """
        (peer,) = state.peers
        if epoch in self._decisions(len(data)):
            fits = per_sample_losses(peer, data).losses < -math.log(max(self.least_probability, PROBABILITY_FLOOR))
            state.p_clean = pinned(fits, data.trusts(data.everything)).float().unsqueeze(0)
        kept = {} if state.p_clean is None else {"kept": float(state.p_clean.mean())}
        return super().epoch(state, data, epoch) | kept

    def passes(self, count: int, clean: float) -> Stages:
        """Count each image once, and once more forward before an epoch in which labels are left out anew."""
        decided = Passes(forward_only=count) * len(self._decisions(count))
        return {"training": same_every_epoch(self, count, clean)["training"] + decided}

    def _decisions(self, count: int) -> range:
        """Return the epochs before which it is decided which labels count; `count` examples are trained on."""
        if self.truncate is None:
            return range(0)
        return range(epochs_in(self.truncate, count, self.batch_size, self.epochs), self.epochs, self.decide_every)

    def losses(self, logits: Tensor, labels: Tensor, cross_entropies: Tensor) -> Tensor:
        """Return L_q. Shape: (B, C), (B,), (B,) -> (B,)."""
        return generalized_cross_entropy(logits, labels, self.power)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SCE(RobustLoss):
    """alpha times cross-entropy plus beta times reverse cross-entropy, Eq. 7. Defaults are those of CIFAR-10."""

    about: ClassVar[About] = About(
        "symmetric cross-entropy: cross-entropy, and the same with label and prediction exchanged",
        "As cheap as `cross_entropy`. The reverse term resists wrong labels, cross-entropy learns hard classes: many\n"
        "classes need more of the latter.",
        "Wang et al., ICCV 2019",
        group="losses",
    )

    cross_entropy_weight: Weight = 0.1  # alpha (6 for CIFAR-100)
    reverse_weight: Weight = 1.0  # beta (0.1 for CIFAR-100)
    log_of_zero: float = -4.0  # A, in place of log 0

    def losses(self, logits: Tensor, labels: Tensor, cross_entropies: Tensor) -> Tensor:
        """Return alpha CE + beta RCE. Shape: (B, C), (B,), (B,) -> (B,)."""
        reverse = reverse_cross_entropy(logits, labels, self.log_of_zero)
        return self.cross_entropy_weight * cross_entropies + self.reverse_weight * reverse
