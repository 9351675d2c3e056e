"""DivideMix (Li, Socher, Hoi, ICLR 2020), Algorithm 1. Legend: N examples, B batch, P = 2 peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Protocol, TypeAlias

import torch
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.divide import clean_probabilities, divide, normalize_losses
from scanmix.blocks.losses import semi_supervised_loss
from scanmix.blocks.memory import append_epoch
from scanmix.blocks.schedules import linear_ramp
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, labeled_views, paired
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.division import divided_passes
from scanmix.methods.steps.mixmatch import Mixed, mixmatch
from scanmix.methods.steps.schedule import rate_after_drops
from scanmix.methods.steps.warmup import warm_up
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer, training_turns

Weighing: TypeAlias = Callable[[Mixed, Tensor, float, float, Meter], Tensor | None]
"""From a batch after MixUp, the positions of its labeled images, lambda_u and the learning rate to weights of rows."""


@dataclasses.dataclass
class DivideMixState:
    """What one epoch hands to the next."""

    peers: list[Peer]
    history: Tensor  # (H, P, N) normalized losses of the last epochs
    p_clean: Tensor | None = None  # (P, N) probability that each given label is right, by each peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DivideMix:
    """Hyper-parameters of the CIFAR-10 runs; symbols are the paper's."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    about: ClassVar[About] = About(
        "two networks; each selects by loss the labels that the other learns",
        "After a warm-up on all labels, each network divides the labels by their loss. The *other* learns the labels\n"
        "that look right, and uses the rest as images without a label. It needs no pre-training. Under heavy noise\n"
        "much depends on the warm-up: it must be long enough to separate right labels from wrong ones, and must end\n"
        "before the wrong ones are memorized.",
        "Li et al., ICLR 2020", "those that look right; the rest as unlabeled", networks=2, rows=4,
        cost_in_words="3 to 13", oracle="clean_threshold, loss_memory, unlabeled_weight, confidence_weight",
        group="semi-supervised", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E, warm-up included
    warmup: Duration = "10 epochs"  # cross-entropy on all given labels; 30 epochs for CIFAR-100
    batch_size: Batch = 64  # B of each set; two views of each image make 4B rows a step
    minimum_steps: int = 0  # a small clean set is passed over again until so many steps are done
    minimum_clean: Count = 1  # the likeliest examples kept as clean when the threshold leaves fewer
    learning_rate: Rate = 0.02  # of SGD
    warmup_rate: Rate = 0.02  # the same in warm-up
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten, ...
    lr_second_drop: Duration | None = None  # ... and again
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters

    clean_threshold: Share = 0.5  # tau (0.6 at 90 % in the paper, which knows the rate)
    mixture: Literal["all", "class"] = "all"  # of the losses of all examples, or of each given label (ours)
    reg_covar: Rate = 5e-4  # added to the variances of the mixture (code)
    loss_memory: Count = 1  # epochs of losses averaged (5 at 90 % in the code, which knows the rate)
    sharpen_temperature: Rate = 0.5  # T
    mixup_alpha: Weight = 4.0  # alpha
    unlabeled_weight: Weight = 25.0  # lambda_u (0 to 150 in the paper's Table 7, by the known rate)
    unlabeled_ramp: Weight = 16.0  # epochs over which lambda_u grows from 0
    prior_weight: Weight = 1.0  # lambda_r
    confidence_weight: Weight = 0.0  # penalty in warm-up (1 in the paper for asymmetric noise, whose type it knows)
    guess_statistics: Literal["batch", "running"] = "batch"  # batch norm of the trained peer while it predicts targets

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DivideMixState:
        """Return two networks that differ by their initial weights."""
        peers = [
            make_peer(network, data, engine, name, self.momentum, self.weight_decay, type(self).heads) for name in "ab"
        ]
        return DivideMixState(peers, torch.zeros(0, 2, len(data), device=engine.device))

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm up; or divide the labels, then train each peer on the other's division."""
        meter = Meter()
        if epoch < self.epochs_in(self.warmup, len(data)):
            with meter.timed("warmup"):
                for side in training_turns(state.peers):
                    self._warm_up(side, state, data, epoch, meter)
            return meter.results() | {"rate/warmup": self.warmup_rate}
        with meter.timed("examine"):
            losses = torch.stack([normalize_losses(per_sample_losses(peer, data).losses) for peer in state.peers])
            state.history = append_epoch(state.history, losses, self.loss_memory)
            groups = data.labels if self.mixture == "class" else None
            p_clean = pinned(clean_probabilities(state.history.mean(0), groups, self.reg_covar), data.trusted)
            state.p_clean = state.peers[0].engine.broadcast(p_clean)
        rate = rate_after_drops(self, len(data), epoch)
        with meter.timed("learn"):
            for side in training_turns(state.peers):
                self._train_pass(side, state.p_clean[1 - side], state, data, epoch, rate, meter)
        return meter.results() | {"rate/learn": rate}

    def epochs_in(self, duration: int | str, count: int) -> int:
        """Return a duration in epochs of `count` examples; a step is a batch of warm-up."""
        return epochs_in(duration, count, 2 * self.batch_size, self.epochs)

    def learned_views(self, data: TrainingData, index: Sequence[Tensor], draws: Generator) -> Sequence[Tensor] | None:
        """Return None: the views that targets are predicted of are learned, too. Shape: (B,) each."""
        return None

    def passes(self, count: int, clean: float) -> Stages:
        """Count warm-up of both networks, then epochs in which both are trained on the other's division."""
        warmup = min(self.epochs, self.epochs_in(self.warmup, count))
        first = Passes(forward_backward=2 * count, weak=2 * count) * warmup
        turn = divided_passes(count, clean, self.batch_size, self.minimum_steps, "weak", 2)
        return {"training": first + turn * (self.epochs - warmup)}

    def weighing(self, peer: Peer, data: TrainingData, clean: Tensor, stage: str, epoch: int) -> Weighing:
        """Return what weighs the rows of each batch: nothing does. Shape: clean (N,) bool."""
        return lambda *_: None

    def _warm_up(self, side: int, state: DivideMixState, data: TrainingData, epoch: int, meter: Meter) -> None:
        """Train the whole network by cross-entropy on all given labels."""
        peer, stage = state.peers[side], f"warmup {side}"
        steps = labeled_views(data, data.views.weak, data.labels, 2 * self.batch_size, stage, epoch, peer.shard)
        warm_up(peer, "network", steps, self.warmup_rate, self.confidence_weight, meter)

    def _train_pass(
        self,
        side: int,
        p_clean: Tensor,
        state: DivideMixState,
        data: TrainingData,
        epoch: int,
        rate: float,
        meter: Meter,
    ) -> None:
        """Train by MixMatch on one pass over the clean set of the other peer."""
        peer, other = state.peers[side], state.peers[1 - side]
        order, draws, mix = data.generators(f"learn {side}", epoch, "order", "views", "mixup")
        in_batch = self.guess_statistics == "batch"
        clean = divide(p_clean, self.clean_threshold, self.minimum_clean)
        pairs = [map(peer.shard, pair) for pair in paired(clean, self.batch_size, order, self.minimum_steps)]
        row_weights = self.weighing(peer, data, clean, f"weigh {side}", epoch)
        for step, (labeled, unlabeled) in enumerate(pairs):
            index = (labeled, labeled, unlabeled, unlabeled)
            views = data.sample_views(data.views.weak, index, draws)
            x, u, y, p = views[:2], views[2:], data.one_hot(labeled), p_clean[labeled]
            learned = self.learned_views(data, index, draws)
            mixed = mixmatch(
                peer, other, x, u, y, p, self.sharpen_temperature, self.mixup_alpha, mix, in_batch, learned
            )
            since = epoch + step / len(pairs) - self.epochs_in(self.warmup, len(data))
            weight = self.unlabeled_weight * linear_ramp(since, self.unlabeled_ramp)
            peer.train()
            of_rows = row_weights(mixed, labeled, weight, rate, meter)
            logits = peer.logits(mixed.inputs)
            losses = semi_supervised_loss(
                logits, mixed.targets, mixed.num_labeled, weight, self.prior_weight, weights=of_rows
            )
            meter.add("learn", **losses._asdict())
            peer.step(losses.total, rate)


class WithDivideMix(Protocol):
    """A method that trains by a DivideMix among its settings."""

    @property
    def dividemix(self) -> DivideMix:
        """Settings of all that comes after its own start."""


def inner_epochs(method: WithDivideMix) -> int:
    """Return E of the inner DivideMix: `epochs = property(inner_epochs)`."""
    return method.dividemix.epochs


def inner_threshold(method: WithDivideMix) -> float:
    """Return tau of the inner DivideMix: `clean_threshold = property(inner_threshold)`."""
    return method.dividemix.clean_threshold
