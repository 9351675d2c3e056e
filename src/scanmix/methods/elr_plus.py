"""ELR+ (Liu et al., NeurIPS 2020): ELR with two networks, running averages as targets, and MixUp.

Legend: N examples, B batch, C classes, P = 2 peers.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.robust import early_learning_term, running_targets
from scanmix.blocks.schedules import sigmoid_ramp
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.ema import ema_update
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import inference
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class ELRPlusState:
    """Two networks, the running averages of their weights, and the targets of each."""

    peers: list[Peer]
    averages: list[Peer]
    targets: Tensor  # (P, N, C) running average of the predictions of the other's average
    p_clean: Tensor | None = None  # always None: ELR+ does not divide


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ELRPlus:
    """Defaults are those of CIFAR-10 with symmetric noise."""

    State: ClassVar[type[ELRPlusState]] = ELRPlusState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "ELR with two networks, each held to what the other's running average predicts, and MixUp",
        "Nearly DivideMix's accuracy in the literature for a third of its passes, and less variance.",
        "Liu et al., NeurIPS 2020", networks=2, forward_backward=2, forward_only=2, weak=2, remembers=True,
        oracle="memory, regularization", group="regularization", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 200  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "75%"  # when the learning rate is divided by ten (epoch 150 of 200)
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    memory: Share = 0.7  # beta: decay of a target's running average (0.9 for asymmetric noise and CIFAR-100)
    clamp: Annotated[float, Field(ge=0, lt=0.5)] = (
        0.0  # distance from 0 and 1 of predictions before averages (ELR: 1e-4)
    )
    regularization: Weight = 3.0  # lambda (1 for asymmetric noise, 7 for CIFAR-100)
    regularization_ramp: Duration = 0  # over which it rises ("40000 steps" for CIFAR-100)
    refine: bool = False  # labels times targets, normalized, in place of labels (CIFAR-100)
    mixup_alpha: Weight = 1.0  # alpha of MixUp's Beta(alpha, alpha)
    average_decay: Share = 0.997  # gamma: decay of the averages of weights in each step, at the end
    average_ramp: Duration = "50%"  # over which that rises from nearly 0 (40,000 steps)
    fidelity: Fidelity = "paper"  # "released": averages start from other weights and predict with batch statistics

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> ELRPlusState:
        """Return two networks that differ by their initial weights, and averages that start as their copies."""
        peers, averages = (
            [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in names]
            for names in ("ab", "ab" if self.fidelity == "paper" else "cd")
        )
        targets = torch.zeros(2, len(data), data.num_classes, device=engine.device)
        return ELRPlusState(peers, averages, targets)

    def epoch(self, state: ELRPlusState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train the first network on all examples once, then the second."""
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        with meter.timed("learn"):
            for side in range(2):
                self._train_pass(side, state, data, epoch, rate, meter)
        return meter.results() | {"rate/learn": rate}

    def _train_pass(
        self, side: int, state: ELRPlusState, data: TrainingData, epoch: int, rate: float, meter: Meter
    ) -> None:
        peer, average, other = state.peers[side], state.averages[side], state.averages[1 - side]
        order, draws, mix = data.generators(f"learn {side}", epoch, "order", "views", "mixup")
        ramps = [data.epochs_in(r, self.batch_size, self.epochs) for r in (self.average_ramp, self.regularization_ramp)]
        steps = list(batches(data.everything, self.batch_size, order))
        for step, index in enumerate(map(peer.shard, steps)):
            views, targets = data.views.weak(data.images[index], draws), state.targets[side]
            with inference(other, batch_statistics=self.fidelity == "released"):
                prediction = other.classifier(other.encoder(views))
            rows = peer.all_gather(index)
            running = running_targets(targets[rows], peer.all_gather(prediction), self.memory, self.clamp)
            targets[rows] = keep_given(running, data.one_hot(rows), data.trusts(rows))
            mixed, both = mixup(views, torch.cat([data.one_hot(index), targets[index]], 1), self.mixup_alpha, mix)
            labels, soft = peer.all_gather(both).split(data.num_classes, 1)
            if self.refine:
                labels = F.normalize(labels * soft, p=1, dim=1)
            peer.train()
            logits = peer.logits(mixed)
            fit, term = soft_cross_entropy(logits, labels), early_learning_term(logits, soft)
            now = epoch + step / len(steps)
            loss = fit + self.regularization * sigmoid_ramp(now, ramps[1]) * term
            meter.add("learn", loss=loss, cross_entropy=fit, regularization=term)
            peer.step(loss, rate)
            ema_update(average, peer, self.average_decay * sigmoid_ramp(now, ramps[0]))
