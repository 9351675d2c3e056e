"""M-correction (Arazo et al., ICML 2019): bootstrapping within MixUp, M-DYR-H and MD-DYR-SH.

A mixture of two Beta distributions, fitted to the losses, gives the weight of each given label; the rest of the target
is the prediction. Legend: N examples, B batch, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.beta_mixture import NoisyAt
from scanmix.blocks.losses import prior_penalty, soft_cross_entropy
from scanmix.blocks.mixmatch import beta, mixup
from scanmix.blocks.robust import NO_ZERO, bootstrap_targets
from scanmix.blocks.schedules import linear_ramp
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.loss_mixture import fit_mixture
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import inference
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class MCorrectionState:
    """One network, and the mixture of the last epoch."""

    peers: list[Peer]
    noisy_at: Tensor | None = None  # P(wrong | loss) in steps of a hundredth of ...
    low: float = 0.0  # ... the losses from here ...
    high: float = 1.0  # ... to here
    p_clean: Tensor | None = None  # (1, N) probability that each given label is right, by the mixture


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MCorrection:
    """M-DYR-H, the paper's main variant: the prediction is one class."""

    State: ClassVar[type[MCorrectionState]] = MCorrectionState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "MixUp whose targets move from the label to the prediction where the loss says that the label is wrong",
        "It does with one network what DivideMix does with two. It needs a first phase in which MixUp prevents\n"
        "memorization. `m_correction_sh` is the authors' variant for heavy noise.",
        "Arazo et al., ICML 2019", rows=1, cost_in_words="1 to 1.7",
        group="correction", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    begin: Duration = "35%"  # epochs of plain MixUp before (105 of 300)
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.1  # of SGD
    lr_drop: Duration = "33%"  # when the learning rate is divided by ten (epoch 100), ...
    lr_second_drop: Duration = "83%"  # ... and again (epoch 250)
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    mixup_alpha: Weight = 32.0  # alpha of Beta(alpha, alpha)
    prior_weight: Weight = 1.0  # eta, of KL(uniform || mean prediction)

    unsettled: ClassVar[int] = 0  # epochs after `begin` without the prior

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> MCorrectionState:
        """Return one fresh network."""
        return MCorrectionState([make_peer(network, data, engine, "a", self.momentum, self.weight_decay)])

    def epoch(self, state: MCorrectionState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train by MixUp on all examples once, with corrected labels once there is a mixture; then fit the mixture."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop, self.lr_second_drop)
        begin = data.epochs_in(self.begin, self.batch_size, self.epochs)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                views, targets = data.views.weak(data.images[index], draws), data.one_hot(index)
                if epoch >= begin and state.noisy_at is not None:
                    noisy_at = NoisyAt(state.noisy_at, state.low, state.high)
                    mixed, targets = self.mix(peer, views, targets, noisy_at, epoch - begin, mix, data.trusts(index))
                else:
                    mixed, targets = mixup(views, targets, self.mixup_alpha, mix, dominant=False)
                peer.train()
                logits = peer.logits(mixed)
                fit = soft_cross_entropy(logits, peer.all_gather(targets))
                prior = prior_penalty(logits) if epoch >= begin + self.unsettled else torch.zeros_like(fit)
                loss = fit + self.prior_weight * prior
                meter.add("learn", loss=loss, fit=fit, prior=prior)
                peer.step(loss, rate)
        if epoch + 1 >= begin:
            with meter.timed("examine"):
                found, state.p_clean = fit_mixture(peer, data, epoch, self.batch_size)
                state.noisy_at, state.low, state.high = found
        return meter.results() | {"rate/learn": rate}

    def passes(self, count: int, clean: float) -> Stages:
        """Count MixUp; from `begin` on also a forward pass of each batch, and from the epoch before of all examples."""
        begin = epochs_in(self.begin, count, self.batch_size, self.epochs)
        fitted = self.epochs - max(0, begin - 1)
        corrected = self.epochs - max(1, begin)  # there is no mixture before the first epoch is over
        plain = Passes(forward_backward=count, weak=count) * self.epochs
        corrections = Passes(forward_only=count) * corrected
        return {"training": plain + corrections + Passes(forward_only=count, weak=count) * fitted}

    def mix(
        self, peer: Peer, views: Tensor, targets: Tensor, noisy_at: NoisyAt, since: int, mix: Generator,
        trusted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return mixed views and targets: labels are corrected to (1 - w) y + w z, then MixUp.

        Args:
            peer: the network, which predicts z.
            views: weak views of a batch. Shape: (B, C, H, W).
            targets: one-hot given labels y. Shape: (B, classes).
            noisy_at: w, the probability that a label is wrong, by its loss.
            since: epochs since `begin`.
            mix: generator of the draws.
            trusted: labels that are known to be right. Shape: (B,) bool.
        """
        logits, trust = self.label_weights(peer, views, targets, noisy_at, trusted)
        corrected = bootstrap_targets(logits, targets, trust, hard=True)
        return mixup(views, corrected, self.mixup_alpha, mix, dominant=False)

    def label_weights(
        self, peer: Peer, views: Tensor, targets: Tensor, noisy_at: NoisyAt, trusted: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and 1 - w, the weight (B, 1) of each given label, from one forward pass."""
        with inference(peer, batch_statistics=False):
            logits = peer.classifier(peer.encoder(views))
        losses = -(targets * F.log_softmax(logits, 1)).sum(1)
        return logits, pinned(1 - noisy_at(losses).clamp(NO_ZERO, 1 - NO_ZERO), trusted).unsqueeze(1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MCorrectionSH(MCorrection):
    """MD-DYR-SH: the mixture weights the images as well; predictions are soft at first, then one class."""

    about: ClassVar[About] = About(
        "as m_correction; of two mixed images the one with the more trusted label counts more",
        "For heavy noise, if the mixture separates right labels from wrong ones. At 20 and 50 % its authors use\n"
        "`m_correction` on CIFAR-10.",
        "Arazo et al., ICML 2019", rows=1, cost_in_words="1 to 1.7",
        group="correction", measured=True,
    )  # fmt: skip

    unsettled: ClassVar[int] = 5  # epochs 106 to 110 in the paper

    cooling: Share = 0.3  # share of all epochs over which the temperature of predictions falls from 1 (89 of 300) ...
    coldest: Rate = 1e-3  # ... to this

    def mix(
        self, peer: Peer, views: Tensor, targets: Tensor, noisy_at: NoisyAt, since: int, mix: Generator,
        trusted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return views mixed by the weights of their labels; targets are mixed at random, and corrected later.

        Args:
            peer: the network, which predicts z.
            views: weak views of a batch. Shape: (B, C, H, W).
            targets: one-hot given labels y. Shape: (B, classes).
            noisy_at: w, the probability that a label is wrong, by its loss.
            since: epochs since `begin`.
            mix: generator of the draws.
            trusted: labels that are known to be right. Shape: (B,) bool.
        """
        logits, trust = self.label_weights(peer, views, targets, noisy_at, trusted)
        partner = torch.randperm(len(views), generator=mix, device=mix.device).to(views.device, non_blocking=True)
        share = trust / (trust + trust[partner])
        mixed = torch.lerp(views[partner], views, share.view(-1, *[1] * (views.ndim - 1)))
        if since < self.unsettled:
            return mixed, torch.lerp(targets[partner], targets, beta(self.mixup_alpha, mix))
        cooled = linear_ramp(since - self.unsettled, self.cooling * self.epochs)
        temperature = 1 + (self.coldest - 1) * cooled
        corrected = bootstrap_targets(logits / temperature, targets, trust, hard=False)
        return mixed, (corrected + corrected[partner]) / 2
