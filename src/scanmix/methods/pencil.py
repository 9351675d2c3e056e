"""PENCIL (Yi and Wu, CVPR 2019): labels are parameters and learn as well. Legend: N examples, B batch, C classes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import confidence_penalty
from scanmix.blocks.robust import divergence_from
from scanmix.blocks.schedules import step_decay
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class PencilState:
    """One network, and the labels, which are trained as well."""

    peers: list[Peer]
    label_logits: Tensor  # (N, C): y~; the label distribution is its softmax
    p_clean: Tensor | None = None  # always None: labels are moved, not divided


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pencil:
    """Three stages: cross-entropy, labels and network together, network alone. Weights as the paper writes them."""

    State: ClassVar[type[PencilState]] = PencilState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "moves the labels by gradients, as if they were weights",
        "It has many settings, and the right ones depend on the noise. `label_rate` decides how far labels move. Look\n"
        "at `changed`, the share of labels whose likeliest class is no longer the given one.",
        "Yi and Wu, CVPR 2019", remembers=True, oracle="learning_rate, label_rate",
        group="correction", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 320  # E, all stages
    fixed: Duration = "21.875%"  # end of the first stage, cross-entropy on the given labels (epoch 70 of 320)
    moving: Duration = "62.5%"  # end of the second stage, in which labels move (epoch 200 of 320)
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.06  # of SGD in the first two stages; a high rate prevents memorization
    final_rate: Rate = 0.2  # in the third, divided by ten after each third of it
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    label_scale: Weight = 10.0  # K: labels start as K times one-hot
    label_rate: Weight = 600.0  # lambda, learning rate of the labels
    compatibility: Weight = 0.1  # alpha, of -log of the probability of the given label
    entropy: Weight = 0.4  # beta, of the entropy of the prediction (the released code has alpha 0.4 and beta 0.1)
    fidelity: Fidelity = "paper"  # "released": compatibility has a second softmax; the third stage stops a third in

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> PencilState:
        """Return one fresh network and the labels as given."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        return PencilState([peer], self.label_scale * data.one_hot(data.everything))

    def epoch(self, state: PencilState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once, in one of the three stages."""
        meter = Meter()
        first, second = (data.epochs_in(end, self.batch_size, self.epochs) for end in (self.fixed, self.moving))
        third = max(1, (self.epochs - second) // 3)
        rate = step_decay(self.final_rate, 0.1, epoch, (second + third, second + 2 * third))
        if self.fidelity == "released" and epoch >= second + third:
            rate = 0.0
        rate = self.learning_rate if epoch < second else rate
        order, draws = data.generators("learn", epoch, "order", "views")
        (peer,) = state.peers
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                labels, soft = data.labels[rows], state.label_logits[rows].requires_grad_()
                if epoch < first:
                    loss = F.cross_entropy(logits, labels)
                else:
                    loss = self.label_loss(logits, soft, labels, moving=epoch < second)
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
                if first <= epoch < second and soft.grad is not None:
                    moved = soft.detach() - self.label_rate * soft.grad
                    state.label_logits[rows] = keep_given(moved, soft.detach(), data.trusts(rows))
        changed = (state.label_logits.argmax(1) != data.labels).float().mean()
        return meter.results() | {"rate/learn": rate, "changed": float(changed)}

    def label_loss(self, logits: Tensor, soft: Tensor, labels: Tensor, *, moving: bool) -> Tensor:
        """KL / C + alpha * compatibility + beta * H / C while labels move, and KL / C alone afterwards.

        Shape: (B, C), (B, C), (B,) -> ().
        """
        classes = logits.shape[1]
        divergence = divergence_from(logits, soft if moving else soft.detach()) / classes
        if not moving:
            return divergence
        near_given = F.cross_entropy(soft.softmax(1) if self.fidelity == "released" else soft, labels)
        return divergence + self.compatibility * near_given - self.entropy * confidence_penalty(logits) / classes
