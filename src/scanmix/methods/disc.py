"""DISC, dynamic instance-specific selection and correction (Li et al., CVPR 2023). Legend: N examples, B batch.

Each example has a threshold of its own in each of two views, a weak and a strong one: the running mean of its
confidence. Its label is right where both views give it more, and hard where one does. Other labels are corrected.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.mixmatch import partners, within
from scanmix.blocks.robust import generalized_cross_entropy
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer

RIGHT, HARD = 1.0, 0.5
"""p_clean of a label that is selected in both views, and in one of them."""


@dataclasses.dataclass
class DISCState:
    """One network, and what is known of each example."""

    peers: list[Peer]
    thresholds: Tensor  # (2, N) running mean of the largest probability, in the weak view and in the strong one
    labels: Tensor  # (N,) given labels, and predicted ones where they were corrected
    mixed: Tensor  # (N,) bool: labels that were selected or corrected
    p_clean: Tensor | None = None  # (1, N) share of the views in which the label was selected; None before that


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DISC:
    """Defaults are those of the released code for CIFAR-10 with up to half of the labels wrong."""

    State: ClassVar[type[DISCState]] = DISCState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = HARD
    about: ClassVar[About] = About(
        "selects and corrects each label by a threshold of its own, in a weak and a strong view",
        "One network, and no pass over the data besides training. The thresholds rise slowly, so it needs many epochs.",
        "Li et al., CVPR 2023", "those that are selected; confident predictions in place of others", rows=4,
        cost_in_words="2, then 4", remembers=True, oracle="threshold_memory, hard_weight", group="selection",
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 200  # E
    batch_size: Batch = 128  # B; two views of each make 2B rows, and as many mixed ones
    learning_rate: Rate = 0.1  # of SGD
    lr_drop: Duration = "40%"  # when the learning rate is divided by ten, ...
    lr_second_drop: Duration = "80%"  # ... and again
    momentum: Share = 0.0  # of SGD
    weight_decay: Weight = 1e-3  # on all parameters
    warmup: Duration = "10%"  # cross-entropy on all given labels; one epoch at least
    threshold_memory: Share = 0.99  # of the running mean (code: 0.95 at 60 % and more, and for asymmetric noise)
    correction_margin: Share = 0.5  # sigma: how far confidence must be above the threshold for a correction, ...
    correction_limit: Share = 0.99  # ... and what is always enough
    hard_weight: Weight = 1.0  # lambda_h of hard labels (code: 0.2 at 60 % and more)
    power: Rate = 0.7  # q of their generalized cross-entropy
    mixup_alpha: Weight = 5.0  # alpha of MixUp's Beta(alpha, alpha)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DISCState:
        """Return one fresh network; thresholds begin at 1 / N."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        none = torch.zeros(len(data), dtype=torch.bool, device=engine.device)
        return DISCState([peer], torch.full((2, len(data)), 1 / len(data), device=engine.device), data.labels, none)

    def epoch(self, state: DISCState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once, in two views; then select and correct labels by what was predicted meanwhile."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop, self.lr_second_drop)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        seen = torch.zeros(2, len(data), data.num_classes, device=data.labels.device)
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                images = data.images[index]
                views = [data.views.weak(images, draws), data.views.strong(images, draws)]
                logits = [peer.all_gather(part) for part in peer.classifier(peer.encoder(torch.cat(views))).chunk(2)]
                rows = peer.all_gather(index)
                seen[:, rows] = torch.stack(logits).detach().float().softmax(2)
                fit = self.fit(logits, data.labels[rows], None if state.p_clean is None else state.p_clean[0, rows])
                mixture = fit.new_zeros(()) if state.p_clean is None else self._mixture(state, views, index, mix)
                meter.add("learn", loss=fit + mixture, fit=fit, mixture=mixture)
                peer.step(fit + mixture, rate)
        if epoch + 1 >= data.epochs_in(self.warmup, self.batch_size, self.epochs):
            p_clean, state.labels, state.mixed = self.select(seen, state.thresholds, data.labels, data.trusted)
            state.p_clean = p_clean.unsqueeze(0)
        state.thresholds = self.threshold_memory * state.thresholds + (1 - self.threshold_memory) * seen.amax(2)
        shares = {"mixed": float(state.mixed.float().mean())}
        return meter.results() | {"rate/learn": rate} | shares

    def fit(self, logits: list[Tensor], labels: Tensor, p_clean: Tensor | None) -> Tensor:
        """Return cross-entropy of right labels and generalized cross-entropy of hard ones, both divided by B.

        Summed over the views; with `p_clean=None` all labels count as right. Shape: two (B, C), (B,), (B,) -> ().
        """
        right = torch.ones(len(labels), device=labels.device) if p_clean is None else (p_clean == RIGHT).float()
        hard = torch.zeros_like(right) if p_clean is None else self.hard_weight * (p_clean == HARD)
        of_views = [
            right * F.cross_entropy(view, labels, reduction="none")
            + hard * generalized_cross_entropy(view, labels, self.power)
            for view in logits
        ]
        return torch.stack(of_views).mean(1).sum()

    def select(
        self, seen: Tensor, thresholds: Tensor, labels: Tensor, trusted: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return p_clean, the labels with corrections, and which of them are selected or corrected.

        A label that is selected in no view is replaced by the class of the largest mean probability of both, if that
        is above the mean threshold + `correction_margin`, or above `correction_limit`.
        Shape: predictions (2, N, C), (2, N), (N,), (N,) bool -> (N,), (N,), (N,) bool.
        """
        given = seen.gather(2, labels.view(1, -1, 1).expand(2, -1, 1)).squeeze(2)
        p_clean = pinned((given > thresholds).float().mean(0), trusted)
        confidence, predicted = seen.mean(0).max(1)
        limit = (thresholds.mean(0) + self.correction_margin).clamp(max=self.correction_limit)
        corrected = (p_clean == 0) & (confidence > limit)
        return p_clean, torch.where(corrected, predicted, labels), (p_clean > 0) | corrected

    def passes(self, count: int, clean: float) -> Stages:
        """Count two views of each image, and after warm-up both once more, mixed."""
        warmup = max(1, epochs_in(self.warmup, count, self.batch_size, self.epochs))
        plain = Passes(forward_backward=2 * count, weak=count, strong=count) * self.epochs
        return {"training": plain + Passes(forward_backward=2 * count) * max(0, self.epochs - warmup)}

    def _mixture(self, state: DISCState, views: list[Tensor], index: Tensor, mix: Generator) -> Tensor:
        """Return the loss of both views, mixed among labels that are selected or corrected. Shape: ()."""
        (peer,) = state.peers
        group = state.mixed[index]
        targets = F.one_hot(state.labels[index], peer.classifier.out_features).float()
        drawn = [partners(view, self.mixup_alpha, mix) for view in views]
        drawn = [(weight, within(partner, group)) for weight, partner in drawn]
        images = [torch.lerp(view[j], view, weight) for view, (weight, j) in zip(views, drawn, strict=True)]
        logits = peer.classifier(peer.encoder(torch.cat(images))).chunk(2)
        counted = peer.all_gather(group).float().unsqueeze(1)
        loss = torch.zeros((), device=group.device)
        for part, (weight, j) in zip(logits, drawn, strict=True):
            soft = counted * peer.all_gather(torch.lerp(targets[j], targets, weight))
            loss = loss + soft_cross_entropy(peer.all_gather(part), soft) * len(counted) / counted.sum().clamp(min=1)
        return loss
