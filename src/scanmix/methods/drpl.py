"""DRPL, towards robust learning with different label noise distributions (Ortego et al., ICPR 2020).

Legend: N examples, B batch, C classes, R epochs remembered.
All labels are replaced for a while, so that the losses of the given labels fall into two groups. A mixture divides
them, a fresh network learns right labels and pseudo-labels, divides them again, and a third does the same.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.robust import relabeling_loss
from scanmix.blocks.schedules import step_decay
from scanmix.blocks.selection import with_every_class
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.loss_mixture import fit_mixture
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import classify, inference, predict_all
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer, reset


@dataclasses.dataclass
class DRPLState:
    """The trained network, the weights that each stage begins with, and the current labels."""

    peers: list[Peer]
    fresh: list[Peer]
    targets: Tensor  # (N, C) soft labels
    remembered: Tensor  # (R, N, C) predictions of the last epochs, epoch e in row e mod R; after relabeling R is 1
    p_clean: Tensor | None = None  # (1, N) by the mixture of the stage before; None in the first stage


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DRPL:
    """Defaults are those of the released code, of 130 + 185 + 310 epochs, for all kinds of noise."""

    State: ClassVar[type[DRPLState]] = DRPLState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "relabels all images to find wrong labels by their losses, then learns them with pseudo-labels, twice",
        "One network with three trainings, so it has many epochs. The prior of its losses is uniform, which does not\n"
        "suit classes that differ much in size.",
        "Ortego et al., ICPR 2020", "those that the mixture keeps; predictions in place of others",
        remembers=True, cost_in_words="1, then 1.3", group="semi-supervised",
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 625  # E, all stages
    relabeling: Duration = "20.8%"  # end of the first stage (130 of 625)
    detection: Duration = "50.4%"  # end of the second stage (315); the third has the rest
    begin: Duration = "11.2%"  # first epoch after which all labels are replaced (70)
    epochs_averaged: Count = 10  # R: predictions that a new label is the mean of
    labeled_warmup: Duration = "1.6%"  # epochs at the start of the later stages on right labels alone (10)
    relabeling_drops: tuple[Share, Share] = (0.577, 0.846)  # when the rate is divided by ten, of that stage (75, 110)
    detection_drops: tuple[Share, Share] = (0.571, 0.857)  # of the epochs after warm-up (100, 150 of 175)
    final_drops: tuple[Share, Share] = (0.5, 0.75)  # of the epochs after warm-up (150, 225 of 300)
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.1  # of SGD, at the start of each stage and after its warm-up
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    prior_weight: Weight = 0.8  # of KL(uniform || mean prediction)
    entropy_weight: Weight = 0.4  # of the entropy of each prediction
    detection_threshold: Share = 0.1  # P(wrong) up to which the second stage takes a label as right
    final_threshold: Share = 0.5  # and the third
    mixup_alpha: Weight = 1.0  # alpha of Beta(alpha, alpha) in the later stages
    random_share: Share = 0.2  # of the pseudo-labels that are uniform, others each epoch (code)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DRPLState:
        """Return a fresh network, its weights for later stages, and the given labels."""
        peers = [make_peer(network, data, engine, "a", self.momentum, self.weight_decay) for _ in range(2)]
        given = data.one_hot(data.everything)
        return DRPLState(peers[:1], peers[1:], given, given.new_zeros(self.epochs_averaged, *given.shape))

    def epoch(self, state: DRPLState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once, in one of the three stages; a mixture divides the labels after the first two."""
        (peer,), meter, given = state.peers, Meter(), data.one_hot(data.everything)
        second, third = self._ends(len(data))
        if epoch < second:
            rate = self._rate(epoch, second, self.relabeling_drops)
            self._train_pass(state, data, epoch, data.everything, 0.0, rate, meter)
            begin = data.epochs_in(self.begin, self.batch_size, self.epochs)
            if epoch >= max(begin, self.epochs_averaged - 1):  # never before all rows are filled
                state.targets = keep_given(state.remembered.mean(0), given, data.trusted)
        else:
            start, end = (second, third) if epoch < third else (third, self.epochs)
            drops = self.detection_drops if epoch < third else self.final_drops
            right = self.right(state, data, self.detection_threshold if epoch < third else self.final_threshold)
            if epoch == start:
                reset(peer, state.fresh[0])
                state.targets, state.remembered = given, torch.zeros_like(given).unsqueeze(0)
            mixed = start + data.epochs_in(self.labeled_warmup, self.batch_size, self.epochs)
            before, after = data.generators("relabel", epoch, "before", "after")
            if epoch == mixed:
                state.remembered[0] = predict_all(classify(peer), data, peer.engine).softmax(1)
                state.targets = pseudo_labels(given, state.remembered[0], right, self.random_share, before)
            rate = self._rate(epoch - mixed, end - mixed, drops) if epoch >= mixed else self.learning_rate
            among = data.everything if epoch >= mixed else right.nonzero().squeeze(1)
            self._train_pass(state, data, epoch, among, self.mixup_alpha, rate, meter)
            if epoch >= mixed:
                state.targets = pseudo_labels(given, state.remembered[0], right, self.random_share, after)
        if epoch + 1 in (second, third) and epoch + 1 < self.epochs:
            with meter.timed("examine"):
                _, state.p_clean = fit_mixture(peer, data, epoch, self.batch_size)
        changed = (state.targets.argmax(1) != data.labels).float().mean()
        return meter.results() | {"rate/learn": rate, "changed": float(changed)}

    def passes(self, count: int, clean: float) -> Stages:
        """Count relabeling, two mixtures, and in later stages a forward pass more for each example."""
        second, third = self._ends(count)
        warmup = epochs_in(self.labeled_warmup, count, self.batch_size, self.epochs)
        plain, look = Passes(forward_backward=count, weak=count), Passes(forward_only=count)
        found = plain * second
        for start, end in ((second, third), (third, self.epochs)):
            first = min(warmup, end - start)
            known = max(1, round(clean * count))
            found += Passes(forward_backward=known, forward_only=known, weak=known) * first
            found += (plain + look) * (end - start - first) + look * (end - start > first)
            found += (look + Passes(weak=count)) * (0 < start < self.epochs)
        return {"training": found}

    def right(self, state: DRPLState, data: TrainingData, threshold: float) -> Tensor:
        """Return which labels count as right: P(wrong) is not above the threshold; all of a class without any.

        All where there was no mixture. Shape: -> (N,) bool.
        """
        if state.p_clean is None:
            return torch.ones_like(data.labels, dtype=torch.bool)
        return with_every_class(state.p_clean[0] >= 1 - threshold, data.labels, data.num_classes)

    def _ends(self, count: int) -> tuple[int, int]:
        """Return the first epochs of the second and the third stage."""
        ends = [epochs_in(part, count, self.batch_size, self.epochs) for part in (self.relabeling, self.detection)]
        return ends[0], max(ends)

    def _rate(self, since: int, length: int, drops: tuple[float, float]) -> float:
        """Return the learning rate after `since` of the `length` epochs of a stage."""
        return step_decay(self.learning_rate, 0.1, since, (round(drops[0] * length), round(drops[1] * length)))

    def _train_pass(
        self, state: DRPLState, data: TrainingData, epoch: int, among: Tensor, alpha: float, rate: float, meter: Meter
    ) -> None:
        """Learn the current labels of some examples, mixed where alpha is above 0; remember the predictions."""
        (peer,) = state.peers
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(among, self.batch_size, order)):
                views, targets = data.views.weak(data.images[index], draws), state.targets[index]
                if alpha > 0:  # what is remembered is not of mixed images
                    with inference(peer, batch_statistics=True):
                        predicted = peer.logits(views).softmax(1)
                    views, targets = mixup(views, targets, alpha, mix, dominant=False)
                logits = peer.logits(views)
                if alpha == 0:
                    predicted = logits.detach().softmax(1)
                loss = relabeling_loss(logits, peer.all_gather(targets), self.prior_weight, self.entropy_weight)
                state.remembered[epoch % len(state.remembered), peer.all_gather(index)] = predicted
                meter.add("learn", loss=loss)
                peer.step(loss, rate)


def pseudo_labels(given: Tensor, predicted: Tensor, right: Tensor, random_share: float, draws: Generator) -> Tensor:
    """Return given labels where they are right, and predictions elsewhere, of which a random share becomes uniform.

    Shape: (N, C), (N, C), (N,) bool -> (N, C).
    """
    others = (~right).nonzero().squeeze(1)
    chosen = others[
        torch.randperm(len(others), generator=draws, device=draws.device)[: int(random_share * len(others))]
    ]
    targets = torch.where(right.unsqueeze(1), given, predicted)
    return targets.index_fill(0, chosen, 1 / targets.shape[1])
