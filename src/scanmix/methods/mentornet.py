"""MentorNet PD (Jiang et al., ICML 2018): a predefined curriculum in closed form. Legend: B batch, C classes.

The paper fits a small network to this curriculum (PD) or to clean labels (DD, `mentornet_dd`). This file is the
function that PD is fitted to.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.selection import moving_percentile, weight_of_small_losses
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class MentorNetState:
    """One network, and the threshold of small losses."""

    peers: list[Peer]
    threshold: float | None = None  # running average of a percentile of the batch; None before the first
    p_clean: Tensor | None = None  # always None: weights belong to a batch, not to an example


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MentorNet:
    """Optimizer as for cross-entropy, curriculum as in the paper."""

    State: ClassVar[type[MentorNetState]] = MentorNetState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "weights each loss by whether it is small for its time",
        "Self-paced learning with a soft threshold. The paper sets `quantile`, the share of a batch whose losses\n"
        "count as small, by the rate of the noise.",
        "Jiang et al., ICML 2018", "those of small loss", oracle="quantile",
        group="selection", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters, times the mean weight of the batch
    quantile: Share = 0.75  # p: share of a batch whose losses are small (0.5 at 80 % noise, which the paper knows)
    loss_decay: Share = 0.5  # decay of the threshold's moving average, for each batch
    early_dropout: Share = 0.5  # share of examples with weight 0 in the first 17 % of training, ...
    dropout: Share = 0.05  # ... and later
    fidelity: Fidelity = "paper"  # "released": the average starts at 0, below every loss, not at the first batch

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> MentorNetState:
        """Return one fresh network."""
        peer = make_peer(network, data, engine, "a", self.momentum, weight_decay=0.0, heads=type(self).heads)
        return MentorNetState([peer], None if self.fidelity == "paper" else 0.0)

    def epoch(self, state: MentorNetState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once."""
        (peer,) = state.peers
        meter = Meter()
        threshold: float | Tensor | None = state.threshold
        # Decay follows the mean weight of each batch, which only the device knows: it is a part of the loss.
        peer.optimizer.param_groups[0]["weight_decay"] = 0.0
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws, drop, pairs = data.generators("learn", epoch, "order", "views", "dropout", "pairs")
        steps = list(batches(data.everything, self.batch_size, order))
        peer.train()
        with meter.timed("learn"):
            for step, index in enumerate(map(peer.shard, steps)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                losses = F.cross_entropy(logits, data.labels[rows], reduction="none")
                progress = (epoch + step / len(steps)) / self.epochs
                threshold = moving_percentile(threshold, losses, self.quantile, self.loss_decay)
                weights = self.curriculum(peer, losses.detach(), threshold, progress)
                share = self.early_dropout if progress < 0.17 else self.dropout
                weights *= torch.rand(len(weights), generator=drop, device=weights.device) >= share
                weights = pinned(weights, data.trusts(rows))
                loss = (weights * losses).mean()
                meter.add("learn", loss=loss, weight=weights.mean())
                loss = loss + self.lesson(peer, logits.detach(), data, rows, (threshold, progress), pairs)
                peer.step(loss + weights.mean() * self.weight_decay / 2 * _squared_norm(peer), rate)
        state.threshold = None if threshold is None else float(threshold)
        return meter.results() | {"rate/learn": rate, "threshold": state.threshold or 0.0}

    def curriculum(self, peer: Peer, losses: Tensor, threshold: Tensor, progress: float) -> Tensor:
        """Return the weights of losses by the curriculum; `progress` in 0..1. Shape: (B,), () -> (B,)."""
        return weight_of_small_losses(losses, threshold, progress)

    def lesson(
        self, peer: Peer, logits: Tensor, data: TrainingData, rows: Tensor, moment: tuple[Tensor, float],
        draws: Generator,
    ) -> Tensor | float:  # fmt: skip
        """Return what a mentor that learns minimizes: here nothing.

        Args:
            peer: the network.
            logits: of the batch, without a graph (B, C).
            data: labels, and which of them are trusted.
            rows: positions of the batch in the data (B,).
            moment: the threshold of small losses (), and the share of training that is over, 0..1.
            draws: for what a mentor draws.

        Shape: -> ().
        """
        return 0.0


def _squared_norm(peer: Peer) -> Tensor:
    """Return the sum of the squares of all parameters. Shape: -> ()."""
    return torch.stack([weight.square().sum() for weight in peer.parameters()]).sum()
