"""Joint optimization (Tanaka et al., CVPR 2018): labels are replaced by averages of the predictions.

Legend: N examples, B batch, C classes, R epochs remembered.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.robust import relabeling_loss
from scanmix.blocks.schedules import step_decay
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Peer, make_peer, reset


@dataclasses.dataclass
class JointState:
    """The trained network, the weights it restarts from, and the current labels."""

    peers: list[Peer]
    fresh: list[Peer]  # initial weights of the second phase
    targets: Tensor  # (N, C) soft labels
    said: Tensor  # (R, N, C) predictions of the last epochs, epoch e in row e mod R
    p_clean: Tensor | None = None  # always None: labels are replaced, not divided


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Joint:
    """A first phase with a high learning rate and moving labels; then a new network on the labels it found."""

    State: ClassVar[type[JointState]] = JointState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "replaces all labels by averages of the network's predictions, then trains a new network on them",
        "Good under moderate noise, if the learning rate of the first phase is high enough to prevent memorization.\n"
        "The uniform prior does not suit classes that differ much in size.",
        "Tanaka et al., CVPR 2018", remembers=True, oracle="learning_rate, prior_weight, entropy_weight",
        group="correction", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 320  # E, both phases
    joint: Duration = "62.5%"  # end of the first phase (epoch 200 of 320)
    begin: Duration = "21.875%"  # first epoch after which labels are replaced (epoch 70 of 320)
    remembered: Count = 10  # R
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.08  # of SGD in the first phase, constant and high
    final_rate: Rate = 0.2  # of the second, divided by ten after each third of it
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    prior_weight: Weight = 1.2  # alpha, of KL(uniform || mean prediction) (0.8 for asymmetric noise)
    entropy_weight: Weight = 0.8  # beta, of the entropy of each prediction (0.4 for asymmetric noise)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> JointState:
        """Return a fresh network, the weights of the second phase, and the given labels."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        given = data.one_hot(data.everything)
        return JointState(peers[:1], peers[1:], given, given.new_zeros(self.remembered, *given.shape))

    def epoch(self, state: JointState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; in the first phase the predictions are stored as they are made."""
        (peer,) = state.peers
        meter = Meter()
        second = data.epochs_in(self.joint, self.batch_size, self.epochs)
        third = max(1, (self.epochs - second) // 3)
        rate = step_decay(self.final_rate, 0.1, epoch, (second + third, second + 2 * third))
        rate = self.learning_rate if epoch < second else rate
        if epoch == second:
            reset(peer, state.fresh[0])
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                loss = fit = soft_cross_entropy(logits, state.targets[rows])
                if epoch < second:
                    state.said[epoch % self.remembered, rows] = logits.detach().softmax(1)
                    loss = relabeling_loss(logits, state.targets[rows], self.prior_weight, self.entropy_weight)
                meter.add("learn", loss=loss, fit=fit)
                peer.step(loss, rate)
        first = data.epochs_in(self.begin, self.batch_size, self.epochs)
        if max(first, self.remembered - 1) <= epoch < second:  # never before all rows are filled
            state.targets = keep_given(state.said.mean(0), data.one_hot(data.everything), data.trusted)
        changed = (state.targets.argmax(1) != data.labels).float().mean()
        return meter.results() | {"rate/learn": rate, "changed": float(changed)}
