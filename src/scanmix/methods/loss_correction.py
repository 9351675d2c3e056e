"""Forward and backward correction (Patrini et al., CVPR 2017): the loss contains how classes are confused.

A first network learns the labels as they are, and the transition matrix T is estimated from its predictions. A second
network learns with the corrected loss. Legend: N examples, B batch, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.robust import backward_loss, forward_loss
from scanmix.blocks.transition import estimate_transition
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import classify, predict_all
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer, reset


@dataclasses.dataclass
class CorrectionState:
    """The trained network, the weights it restarts from, and what is known of the noise."""

    peers: list[Peer]
    fresh: list[Peer]  # initial weights of the second network
    best: Tensor  # (N, C) predictions at the lowest loss on labels held out so far
    lowest: float = float("inf")  # that loss
    transition: Tensor | None = None  # (C, C) T, once it is estimated
    p_clean: Tensor | None = None  # always None: the labels are not divided


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Forward:
    """-log sum_i p_i T_iy; optimizer as for cross-entropy, with a learning rate that drops in each stage."""

    State: ClassVar[type[CorrectionState]] = CorrectionState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "learns through an estimated matrix of how classes are confused",
        "Take it where wrong labels depend on the class (cats labeled dogs) and each class has clear images. Half of\n"
        "the epochs go into the estimate. Under heavy symmetric noise the estimate is poor.",
        "Patrini et al., CVPR 2017", remembers=True, cost_in_words="1.2",
        group="losses", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E, both stages
    estimation: Duration = "50%"  # first stage; the second has the rest
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD, at the start of each stage
    lr_drop: Duration = "25%"  # epochs into a stage after which it is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    held_out: Share = 0.1  # share of the (noisy) labels that select the best epoch of the first stage
    quantile: Share = 0.97  # of p_i, above which an example is not used for class i (1 for CIFAR-100)
    identity: Share = 0.0  # a: T becomes a I + (1 - a) T, which is further from singular
    fidelity: Fidelity = "paper"  # "released": examples excluded for a class count as zero for later classes

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> CorrectionState:
        """Return a fresh network, and the weights of the second stage."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        return CorrectionState(peers[:1], peers[1:], torch.zeros(len(data), data.num_classes, device=engine.device))

    def epoch(self, state: CorrectionState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train for an epoch of either stage; between them T is estimated and the network is reset."""
        (peer,) = state.peers
        meter = Meter()
        begin = data.epochs_in(self.estimation, self.batch_size, self.epochs)
        since = epoch if epoch < begin else epoch - begin
        rate = decayed_rate(self, data, since, self.lr_drop)
        if epoch < begin:
            self._observe(state, data, epoch, rate, meter)
            return meter.results() | {"rate/learn": rate}
        if epoch == begin:
            found = estimate_transition(state.best, self.quantile, spoil=self.fidelity == "released")
            state.transition = self.identity * torch.eye(data.num_classes).to(found) + (1 - self.identity) * found
            reset(peer, state.fresh[0])
        assert state.transition is not None
        condition = float(torch.linalg.cond(state.transition))
        order, draws = data.generators("learn", epoch, "order", "views")
        with meter.timed("learn"):
            self._train_pass(peer, data, data.everything, order, draws, rate, state.transition, meter)
        return meter.results() | {"rate/learn": rate, "transition/condition": condition}

    def passes(self, count: int, clean: float) -> Stages:
        """Count the first stage, on labels not held out and with a forward pass over all examples; then the second."""
        first = epochs_in(self.estimation, count, self.batch_size, self.epochs)
        trained = count - round(self.held_out * count)
        before = Passes(forward_backward=trained, weak=trained, forward_only=count) * first
        return {"training": before + Passes(forward_backward=count, weak=count) * (self.epochs - first)}

    def correct(self, logits: Tensor, labels: Tensor, transition: Tensor, trusted: Tensor | None = None) -> Tensor:
        """Return the corrected loss of a batch. Shape: (B, C), (B,), (C, C), (B,) bool -> scalar."""
        return forward_loss(logits, labels, transition.to(logits.dtype), trusted)

    def _observe(self, state: CorrectionState, data: TrainingData, epoch: int, rate: float, meter: Meter) -> None:
        """Train by cross-entropy on labels that are not held out; those held out select the best predictions."""
        (peer,) = state.peers
        order, draws = data.generators("learn", epoch, "order", "views")
        split = data.generator("learn", 0, "split")  # the same in every epoch
        shuffled = torch.randperm(len(data), generator=split, device=split.device)
        held, rest = shuffled.tensor_split([round(self.held_out * len(data))])
        with meter.timed("learn"):
            self._train_pass(peer, data, rest, order, draws, rate, None, meter)
        with meter.timed("examine"):
            logits = predict_all(classify(peer), data, peer.engine)
            validation = held if len(held) else rest
            loss = float(F.cross_entropy(logits[validation], data.labels[validation]))
            if loss < state.lowest:
                state.lowest, state.best = loss, logits.softmax(1)

    def _train_pass(
        self, peer: Peer, data: TrainingData, among: Tensor, order: Generator, draws: Generator, rate: float,
        transition: Tensor | None, meter: Meter,
    ) -> None:  # fmt: skip
        peer.train()
        for index in map(peer.shard, batches(among, self.batch_size, order)):
            logits = peer.logits(data.views.weak(data.images[index], draws))
            rows = peer.all_gather(index)
            labels = data.labels[rows]
            if transition is None:
                loss = F.cross_entropy(logits, labels)
            else:
                loss = self.correct(logits, labels, transition, data.trusts(rows))
            meter.add("learn", loss=loss)
            peer.step(loss, rate)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Backward(Forward):
    """sum_k (T^-1)_yk (-log p_k): unbiased, and unbounded from below where T is nearly singular."""

    about: ClassVar[About] = About(
        "weights the losses of all classes so that wrong labels cancel on average",
        "As `forward`, with more variance: the inverse of an estimated matrix has large weights of both signs. Look\n"
        "at `transition/condition`; where it is above ten or so, raise `identity`.",
        "Patrini et al., CVPR 2017", remembers=True, cost_in_words="1.2",
        group="losses", measured=True,
    )  # fmt: skip

    def correct(self, logits: Tensor, labels: Tensor, transition: Tensor, trusted: Tensor | None = None) -> Tensor:
        """Return the corrected loss of a batch. Shape: (B, C), (B,), (C, C), (B,) bool -> scalar."""
        return backward_loss(logits, labels, torch.linalg.inv(transition).to(logits.dtype), trusted)
