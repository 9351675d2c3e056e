"""MentorMix (Jiang et al., ICML 2020): MentorNet's weights choose the partners of MixUp. Legend: B batch."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.mixmatch import betas
from scanmix.blocks.selection import moving_percentile, weight_of_small_losses
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.ema import ema_update
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, classify, inference, unchanged_statistics
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class MentorMixState:
    """The trained network, its running average, and the thresholds of small losses."""

    peers: list[Peer]
    averages: list[Peer]  # one: the running average, which predicts
    steps: int = 0  # so far
    threshold: float | None = None  # of plain losses; None before the first batch
    mixed_threshold: float | None = None  # of losses after MixUp
    p_clean: Tensor | None = None  # always None: weights belong to a batch, not to an example


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MentorMix:
    """Weight the losses, draw partners by weight, mix, and weight again where `second_weighting` is set."""

    State: ClassVar[type[MentorMixState]] = MentorMixState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "MixUp with partners whose labels look right; the trusted image dominates",
        "Strong on labels from the web in the literature, if `quantile`, `mixup_alpha` and `second_weighting` fit the\n"
        "rate of the noise. The running average of the weights predicts.",
        "Jiang et al., ICML 2020", forward_only=1, oracle="quantile, mixup_alpha, second_weighting",
        group="semi-supervised", measured=True,
    )  # fmt: skip
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    burn_in: Duration = "10%"  # epochs in which every example counts
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.1  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 2e-4  # on all parameters
    quantile: Share = 0.7  # p: share of a batch whose losses are small
    loss_decay: Share = 0.5  # decay of a threshold's moving average, for each batch
    mixup_alpha: Weight = 2.0  # alpha of Beta(alpha, alpha)
    weight_statistics: Literal["batch", "running"] = "batch"  # batch norm of the first look, which weights (code)
    second_weighting: bool = False  # weight the mixed losses as well (for 60 % noise and more)
    average_decay: Share = 0.9999  # decay of the average in each step, at the end
    fidelity: Fidelity = "paper"  # "released": thresholds start at 0; no weight decay with a second weighting

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> MentorMixState:
        """Return one fresh network, and an average that starts as its copy."""
        decay, threshold = self.weight_decay, None
        if self.fidelity == "released":
            decay, threshold = 0.0 if self.second_weighting else decay, 0.0
        peer, average = (make_peer(network, data, engine, "a", self.momentum, decay) for _ in range(2))
        return MentorMixState([peer], [average], 0, threshold, threshold)

    def epoch(self, state: MentorMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once."""
        (peer,), meter = state.peers, Meter()
        threshold: float | Tensor | None = state.threshold
        mixed_threshold: float | Tensor | None = state.mixed_threshold
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        everything_counts = epoch < data.epochs_in(self.burn_in, self.batch_size, self.epochs)
        order, draws, partners, mix = data.generators("learn", epoch, "order", "views", "partners", "mixup")
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                views, labels = data.views.weak(data.images[index], draws), data.one_hot(index)
                with unchanged_statistics(peer), inference(peer, batch_statistics=self.weight_statistics == "batch"):
                    losses = _cross_entropies(peer.classifier(peer.encoder(views)), labels)
                threshold = moving_percentile(threshold, peer.all_gather(losses), self.quantile, self.loss_decay)
                weights = torch.ones_like(losses) if everything_counts else self._weights(losses, threshold)
                weights = pinned(weights, data.trusts(index))
                mixed, targets = self._mix(views, labels, weights, partners, mix)
                peer.train()
                after = _cross_entropies(peer.logits(mixed), peer.all_gather(targets))
                loss = after.mean()
                if self.second_weighting and not everything_counts:
                    mixed_threshold = moving_percentile(mixed_threshold, after, self.quantile, self.loss_decay)
                    trusted = data.trusts(peer.all_gather(index))
                    second = pinned(self._weights(after.detach(), mixed_threshold), trusted)
                    loss = (second * after).mean()
                meter.add("learn", loss=loss, weight=weights.mean())
                peer.step(loss, rate)
                state.steps += 1
                ema_update(state.averages[0], peer, min(self.average_decay, (1 + state.steps) / (10 + state.steps)))
        state.threshold = None if threshold is None else float(threshold)
        state.mixed_threshold = None if mixed_threshold is None else float(mixed_threshold)
        return meter.results() | {"rate/learn": rate, "threshold": state.threshold or 0.0}

    def predictor(self, state: MentorMixState) -> Predictor:
        """Return the running average."""
        return Predictor([classify(peer) for peer in state.averages])

    def _weights(self, losses: Tensor, threshold: float | Tensor) -> Tensor:
        """Return weights by a threshold alone, which the authors allow: the middle of MentorNet's curriculum."""
        return weight_of_small_losses(losses, threshold, 0.5)

    def _mix(
        self, views: Tensor, labels: Tensor, weights: Tensor, partners: Generator, mix: Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw a partner and a share for each row; the trusted one of both gets the larger share (Algorithm 1)."""
        partner = torch.multinomial(weights.softmax(0), len(weights), replacement=True, generator=partners)
        share = betas(self.mixup_alpha, len(weights), mix).to(weights.device, non_blocking=True)
        share = torch.maximum(share, 1 - share)
        share = torch.where(weights < 0.5, 1 - share, share)
        by_image = share.view(-1, *[1] * (views.ndim - 1))
        return torch.lerp(views[partner], views, by_image), torch.lerp(labels[partner], labels, share.unsqueeze(1))


def _cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Shape: (B, C), (B, C) -> (B,)."""
    return -(targets * F.log_softmax(logits, 1)).sum(1)
