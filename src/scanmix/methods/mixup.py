"""MixUp (Zhang et al., ICLR 2018): convex combinations of images and of their given labels. Legend: B batch."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.mixmatch import mixup
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixUp:
    """Cross-entropy on mixtures; optimizer defaults as for cross-entropy, alpha as for noisy labels."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "cross-entropy on mixed pairs of images",
        "Memorizes later than `cross_entropy`, at the same cost. It does not say which labels are wrong.",
        "Zhang et al., ICLR 2018",
        group="regularization",
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
    mixup_alpha: Weight = 1.0  # alpha of Beta(alpha, alpha)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        return Networks([peer])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once, each mixed with a random partner of its batch."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                images = data.views.weak(data.images[index], draws)
                images, targets = mixup(images, data.one_hot(index), self.mixup_alpha, mix, dominant=False)
                logits = peer.logits(images)
                loss = soft_cross_entropy(logits, peer.all_gather(targets))
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}
