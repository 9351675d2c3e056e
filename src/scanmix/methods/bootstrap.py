"""Bootstrapping (Reed et al., ICLR workshop 2015): targets blend label and prediction. Legend: B batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.robust import bootstrap_targets
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bootstrap:
    """Hard bootstrapping by default; the optimizer is that of cross-entropy."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "cross-entropy to a blend of the label and the network's own prediction",
        "As cheap as `cross_entropy` and seldom much better: a network that has memorized a label also predicts it.",
        "Reed et al., ICLR workshop 2015",
        group="correction",
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
    answer: Literal["hard", "soft"] = "hard"  # the likeliest class, or all predicted probabilities
    trust: Share = 0.8  # beta, share of the given label (0.95 in the paper with soft answers)
    detach: bool = False  # no gradient through soft answers (Arazo et al. 2019); with one, entropy falls too

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                prediction = logits.detach() if self.detach else logits
                rows = peer.all_gather(index)
                given = data.one_hot(rows)
                targets = bootstrap_targets(prediction, given, self.trust, hard=self.answer == "hard")
                targets = keep_given(targets, given, data.trusts(rows))
                loss = soft_cross_entropy(logits, targets)
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}
