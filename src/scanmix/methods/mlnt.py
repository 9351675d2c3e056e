"""MLNT, learning to learn from noisy labels (Li, Wong, Zhao and Kankanhalli, CVPR 2019), Algorithm 1 and section 3.3.

Called "Meta-Learning" in the tables. Legend: N examples, B batch, C classes, M synthetic batches, G gradient.
A step of training on made-up labels must not change what the running average of the network predicts. The gradient of
that is of first order, as in the paper.

What the published description leaves open, and how it is filled: the network whose features give the neighbors in the
first round is trained by cross-entropy alone, for as long as a round; a round begins with the first weights again, and
its mentor is the last running average of the round before, not the best on clean images; the weight of the teacher
beside the mentor rises along a line. Size of the step, neighbors, decay and ramp are those of the released code for
Clothing1M; it has the two last in steps, which here are a share of the round.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.meta import Weights, gradient, outputs_at, stepped, synthetic_labels, weights_of, with_gradient
from scanmix.blocks.schedules import sigmoid_ramp, step_decay
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step
from scanmix.networks.batch_norm import unsynchronized
from scanmix.networks.ema import ema_update
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, classify, inference, predict_all
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer, reset


@dataclasses.dataclass
class MLNTState:
    """The student, and three networks that no gradient moves."""

    peers: list[Peer]
    averages: list[Peer]  # one: the teacher, the running average of the student, which predicts
    mentors: list[Peer]  # one: the teacher as it was at the end of the last round
    first: list[Peer]  # one: fresh weights, with which each round begins
    steps: int = 0  # of this round
    p_clean: Tensor | None = None  # (1, N) 0 where the mentor finds the label unlikely; None in the first round


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MLNT:
    """Defaults are those of CIFAR-10, as far as they are known."""

    State: ClassVar[type[MLNTState]] = MLNTState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "a step on made-up labels must not change what the network's running average predicts",
        "No rate of the noise is needed. Twenty times as expensive as `cross_entropy`. After the published\n"
        "description: the authors' settings for CIFAR are not known in full.",
        "Li et al., CVPR 2019", "all; from the second round on those that are not unlikely",
        cost_in_words="1, later 22", group="meta",
    )  # fmt: skip
    largest_batch = rows_of_a_step

    epochs: Count = 480  # E: four times 120
    burn_in: Duration = "25%"  # epochs of cross-entropy alone, which give the first features
    rounds: Count = 3  # into which the other epochs are split
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.2  # eta of SGD
    lr_drop: Duration = "67%"  # of a round, when the learning rate is divided by ten (epoch 80 of 120)
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    synthetic: Count = 10  # M: synthetic batches in a step
    replaced: Share = 0.5  # share of a batch that takes the label of a neighbor
    num_neighbors: Count = 10  # in the batch, of which one gives its label
    meta_rate: Rate = 0.02  # alpha: size of the step on a synthetic batch (code)
    consistency_weight: Weight = 1.0  # of the meta loss, at its end (code)
    meta_ramp: Share = 0.04  # share of a round over which it rises (code: 2,000 steps)
    early_decay: Share = 0.99  # decay of the teacher in each step, until the ramp ends (code), ...
    average_decay: Share = 0.999  # ... and later (code)
    unlikely: Share = 0.01  # tau: labels that the mentor gives less are left out

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> MLNTState:
        """Return one fresh network four times."""
        peers = [make_peer(network, data, engine, "a", self.momentum, self.weight_decay) for _ in range(4)]
        return MLNTState(peers[:1], peers[1:2], peers[2:3], peers[3:])

    def epoch(self, state: MLNTState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once: by cross-entropy, and after the burn-in by the meta loss, too."""
        (peer,), (teacher,), (mentor,) = state.peers, state.averages, state.mentors
        meter = Meter()
        turn, since, length = self.place(len(data), epoch)
        if turn >= 0 and since == 0:
            self._begin_round(state)
        if turn > 0:
            with meter.timed("examine"):
                predicted = predict_all(classify(mentor), data, peer.engine).softmax(1)
                likely = (self_confidence(predicted, data.labels) >= self.unlikely).float()
                state.p_clean = peer.engine.broadcast(pinned(likely, data.trusted).unsqueeze(0))
        drop = data.epochs_in(self.lr_drop, self.batch_size, length)
        rate = step_decay(self.learning_rate, 0.1, since, (drop,))
        order, draws, make = data.generators("learn", epoch, "order", "views", "synthetic")
        kept = torch.ones(len(data), device=data.labels.device) if state.p_clean is None else state.p_clean[0]
        steps = list(batches(data.everything, self.batch_size, order))
        peer.train()
        with meter.timed("learn"):
            for step, index in enumerate(map(peer.shard, steps)):
                views = data.views.weak(data.images[index], draws)
                logits, rows = peer.logits(views), peer.all_gather(index)
                losses = F.cross_entropy(logits, data.labels[rows], reduction="none")
                loss = fit = (kept[rows] * losses).sum() / kept[rows].sum().clamp(min=1)
                done = (since + step / len(steps)) / length
                if turn >= 0:
                    targets, features = self._targets(teacher, mentor, views, 0.5 * done if turn else 1.0)
                    made = [
                        synthetic_labels(features, data.labels[rows], self.num_neighbors, self.replaced, make, trusted)
                        for trusted in [data.trusts(rows)] * self.synthetic
                    ]
                    slope, apart = self.meta_gradient(peer, peer.all_gather(views), targets, made)
                    weight = self.consistency_weight * sigmoid_ramp(done, self.meta_ramp)
                    loss = fit + weight * with_gradient(classify(peer), slope)
                    meter.add("meta", apart=apart)
                meter.add("learn", loss=fit)
                peer.step(loss, rate)
                state.steps += 1
                decay = self.early_decay if done < self.meta_ramp else self.average_decay
                ema_update(teacher, peer, min(decay, (1 + state.steps) / (10 + state.steps)))
        return meter.results() | {"rate/learn": rate, "kept": float(kept.mean())}

    def meta_gradient(self, peer: Peer, views: Tensor, targets: Tensor, made: list[Tensor]) -> tuple[Weights, Tensor]:
        """Return the gradient of the meta loss, at the weights after each synthetic step, and the loss (Eq. 2 to 5).

        The loss is the mean over M of KL(targets || prediction at w - alpha grad CE(w; synthetic labels)).
        Shape: (B, ...), (B, C), M times (B,) -> G, ().
        """

        def loss_at(labels: Tensor, weights: Weights) -> Tensor:
            return F.cross_entropy(outputs_at(network, weights, views), labels)

        network, apart = classify(peer), torch.zeros((), device=views.device)
        before, entropy = weights_of(network), torch.special.entr(targets).sum(1).mean()
        mean = {name: torch.zeros_like(weight) for name, weight in before.items()}
        with unsynchronized(network):
            for labels in made:
                slope, _ = gradient(functools.partial(loss_at, labels), before)
                slope, loss = gradient(functools.partial(loss_at, targets), stepped(before, slope, self.meta_rate))
                mean = {name: part + slope[name] / len(made) for name, part in mean.items()}
                apart += (loss - entropy) / len(made)
        return mean, apart

    def predictor(self, state: MLNTState) -> Predictor:
        """Return the teacher."""
        return Predictor([classify(peer) for peer in state.averages])

    def passes(self, count: int, clean: float) -> Stages:
        """Count cross-entropy; then M steps, looks after them, teacher and mentor; and the mentor's look at all."""
        turns = [self.place(count, epoch) for epoch in range(self.epochs)]
        meta = sum(turn >= 0 for turn, *_ in turns)
        looks = sum(turn > 0 for turn, *_ in turns)
        every = Passes(forward_backward=count, weak=count) * self.epochs
        step = Passes(forward_backward=2 * self.synthetic * count, forward_only=2 * count) * meta
        return {"training": every + step + Passes(forward_only=count) * looks}

    def place(self, count: int, epoch: int) -> tuple[int, int, int]:
        """Return the round of an epoch (-1: burn-in), how many epochs it has lasted, and how many it lasts in all."""
        first = min(self.epochs, epochs_in(self.burn_in, count, self.batch_size, self.epochs))
        if epoch < first:
            return -1, epoch, first
        length = max(1, (self.epochs - first) // self.rounds)
        turn = min((epoch - first) // length, self.rounds - 1)
        return turn, epoch - first - turn * length, length

    def _begin_round(self, state: MLNTState) -> None:
        """Make the teacher the mentor, and begin anew."""
        (peer,), (teacher,), (mentor,), (first,) = state.peers, state.averages, state.mentors, state.first
        mentor.load_state_dict(teacher.state_dict())
        reset(peer, first)
        reset(teacher, first)
        state.steps = 0

    def _targets(self, teacher: Peer, mentor: Peer, views: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Return what both predict, the teacher with this weight, and the mentor's features, of all processes.

        Shape: (B, ...) -> (B, C), (B, D).
        """
        with inference(teacher, batch_statistics=False), inference(mentor, batch_statistics=False):
            features = mentor.all_gather(mentor.encoder(views))
            both = weight * teacher.logits(views).softmax(1) + (1 - weight) * mentor.classifier(features).softmax(1)
        return both, features
