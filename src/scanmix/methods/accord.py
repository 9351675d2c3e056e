"""ACCORD: features and classes are learned together, and neighbors in both views of a picture say what to believe.

Joint self- and semi-supervised training, which ScanMix's authors name as future work; no paper has it. Beliefs are the
probabilities of each example's classes (`blocks.inferred_classes`); nothing reads the rate or kind of the noise. The
first rest on features of the pictures that nothing has trained, so the network cannot confirm itself.

1. Form beliefs by the features of the pictures (`blocks.pictures`).
2. For two thirds of the epochs: SimCLR's loss, and cross-entropy to the beliefs, on the same two views.
3. Form beliefs anew by the features of the pictures and of the network.
4. For the other epochs: cross-entropy to these beliefs with MixUp, stronger the more labels are wrong.

Legend: N examples, B batch, C classes, D features of the network, P of the pictures.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.inferred_classes import infer_classes
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.losses import nt_xent, soft_cross_entropy
from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.pictures import image_features, narrowed_axes
from scanmix.blocks.schedules import cosine
from scanmix.blocks.selection import mean_one
from scanmix.config import STRICT, About, Batch, Count, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.networks.ema import ema_update
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, classify, predict_all
from scanmix.networks.passes import Passes, Stages, whole_batches
from scanmix.networks.peer import Heads, Peer, make_peer
from scanmix.pretrain.simclr import Projector

LEAST = 1e-3
"""Least weight of an example, and least mass of a class."""
AHEAD = 1.0
"""Standard errors by which rounds of propagation must show that they help, see `infer_classes`."""


@dataclasses.dataclass
class AccordState:
    """The network, the running average that predicts, and what is believed."""

    peers: list[Peer]
    averages: list[Peer]
    pictures: Tensor | None = None  # (N, P) unit rows: features of the pictures, until the last beliefs are formed
    beliefs: Tensor | None = None  # (N, C) probability of each class
    p_clean: Tensor | None = None  # (1, N) belief in the given label
    steps: int = 0  # taken so far


def _projector(num_features: int) -> dict[str, nn.Module]:
    return {"projector": Projector(num_features, 128)}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Accord:
    """One set of values for every kind and rate of noise; `epochs` is the budget."""

    State: ClassVar[type[AccordState]] = AccordState
    self_supervised: ClassVar[bool] = False
    clean_threshold: ClassVar[float | None] = 0.5
    heads: ClassVar[Heads | None] = staticmethod(_projector)
    about: ClassVar[About] = About(
        "learns features without labels and classes from what neighbors say of them, in one training",
        "For pictures without a pretrained network, whatever the noise: a quarter of the time of `scanmix`.",
        labels="all, as far as neighbors say the same", rows=2, cost_in_words="2, then 1", group="contrastive",
        measured=True,
    )  # fmt: skip

    epochs: Count = 30  # E
    joint: Share = 0.67  # share of the epochs that learn features and classes together
    joint_batch: Batch = 256  # two views of each make twice as many rows a step
    joint_rate: Rate = 0.2  # of SGD in the joint part; falls along a cosine to a thousandth
    contrast_temperature: Rate = 0.2  # T of NT-Xent
    class_weight: Weight = 3.0  # of cross-entropy beside NT-Xent
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.05  # of SGD in the last part; falls along a cosine to 0
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    average_decay: Share = 0.99  # of the running average, in each step
    num_neighbors: Count = 10  # K
    mixup_strength: Weight = 4.0  # alpha of MixUp's Beta(alpha, alpha) if all labels were wrong
    polish: Share = 0.15  # share of the last part with weak views and without MixUp
    balance: Share = 0.5  # 0: classes as they are; 1: each class equally often

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> AccordState:
        """Return a fresh network and its running average, which begins as its copy."""
        both = [make_peer(network, data, engine, "a", self.momentum, self.weight_decay, _projector) for _ in range(2)]
        return AccordState(both[:1], both[1:])

    def epoch(self, state: AccordState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Form beliefs where a part begins; then learn features and classes together, or classes alone."""
        meter = Meter()
        if epoch in (0, self.joint_epochs):
            with meter.timed("believe"):
                self.believe(state, data, epoch)
        with meter.timed("learn"):
            learn = self.learn_together if epoch < self.joint_epochs else self.learn_classes
            rate = learn(state, data, epoch, meter)
        return meter.results() | {"rate/learn": rate}

    @property
    def joint_epochs(self) -> int:
        """Number of epochs in the joint part."""
        return round(self.joint * self.epochs)

    def believe(self, state: AccordState, data: TrainingData, epoch: int) -> None:
        """Set the beliefs: by the features of the pictures, after the joint part beside those of the network."""
        average = state.averages[0]
        if state.pictures is None:
            state.pictures = F.normalize(image_features(data.images).to(data.labels.device), dim=1)
        seen = state.pictures
        if epoch:
            features = predict_all(average.encoder, data, average.engine).float()
            mean, axes = narrowed_axes(features)
            seen, state.pictures = torch.cat([seen, F.normalize((features - mean) @ axes, dim=1)], 1), None
        neighbors = nearest_neighbors(seen, min(self.num_neighbors, len(data) - 1))
        draws = data.generator("believe", epoch, "draws")
        inferred = infer_classes(neighbors, seen, data.labels, data.num_classes, draws, data.trusted, margin=AHEAD)
        state.beliefs = average.engine.broadcast(inferred.posterior)
        state.p_clean = self_confidence(state.beliefs, data.labels).unsqueeze(0)

    def learn_together(self, state: AccordState, data: TrainingData, epoch: int, meter: Meter) -> float:
        """Pass over all examples once: NT-Xent, and weighted cross-entropy to the beliefs, on two views of each."""
        assert state.beliefs is not None
        (peer,), weights = state.peers, mean_one(self.weights(state.beliefs))
        rate = cosine(self.joint_rate, self.joint_rate / 1000, epoch / self.joint_epochs)
        order, draws = data.generators("together", epoch, "order", "views")
        peer.train()
        for index in map(peer.shard, batches(data.everything, self.joint_batch, order, drop_last=True)):
            views = torch.cat([data.views.contrastive(data.images[index], draws) for _ in range(2)])
            features = peer.encoder(views)
            first, second = peer.heads["projector"](features).chunk(2)
            contrast = nt_xent(peer.all_gather(first), peer.all_gather(second), self.contrast_temperature)
            rows, logits = peer.all_gather(index.repeat(2)), peer.all_gather(peer.classifier(features))
            fit = soft_cross_entropy(logits, weights[rows].unsqueeze(1) * state.beliefs[rows])
            loss = contrast + self.class_weight * fit
            meter.add("learn", loss=loss, contrast=contrast, fit=fit)
            self.step(state, loss, rate)
        return rate

    def learn_classes(self, state: AccordState, data: TrainingData, epoch: int, meter: Meter) -> float:
        """Take N / B steps of cross-entropy on mixed strong views, drawn by how sure beliefs are; then weak views."""
        assert state.beliefs is not None and state.p_clean is not None
        (peer,) = state.peers
        done = (epoch - self.joint_epochs) / max(1, self.epochs - self.joint_epochs)
        polishing = done >= 1 - self.polish
        view = data.views.weak if polishing else data.views.strong
        alpha = 0.0 if polishing else self.mixup_strength * float(1 - state.p_clean.mean())
        rate = cosine(self.learning_rate, 0.0, done)
        order, draws, mix = data.generators("classes", epoch, "order", "views", "mixup")
        count = self.batch_size * max(1, len(data) // self.batch_size)
        drawn = torch.multinomial(self.weights(state.beliefs), count, replacement=True, generator=order)
        peer.train()
        for index in map(peer.shard, drawn.split(self.batch_size)):
            (views,) = data.sample_views(view, (index,), draws)
            mixed, targets = mixup(views, state.beliefs[index], alpha, mix)
            loss = soft_cross_entropy(peer.logits(mixed), peer.all_gather(targets))
            meter.add("learn", loss=loss)
            self.step(state, loss, rate)
        return rate

    def weights(self, beliefs: Tensor) -> Tensor:
        """Return how sure each belief is, with classes drawn nearer to each other in mass. Shape: (N, C) -> (N,)."""
        even = 1 / beliefs.shape[1]
        sure = ((beliefs.amax(1) - even) / (1 - even)).clamp(min=LEAST)
        mass = (sure.unsqueeze(1) * beliefs).sum(0).clamp(min=LEAST)
        return sure * (beliefs @ mass.pow(-self.balance))

    def step(self, state: AccordState, loss: Tensor, rate: float) -> None:
        """Take a step, and let the average follow; at first it follows closely. Shape: loss ()."""
        state.peers[0].step(loss, rate)
        state.steps += 1
        ema_update(state.averages[0], state.peers[0], min(self.average_decay, state.steps / (10 + state.steps)))

    def predictor(self, state: AccordState) -> Predictor:
        """Return the running average."""
        return Predictor([classify(average) for average in state.averages])

    def passes(self, count: int, clean: float) -> Stages:
        """Count two contrastive views of each example in the joint part, then one view of as many as there are."""
        rows = 2 * whole_batches(count, self.joint_batch)
        together = Passes(forward_backward=rows, contrastive=rows) * self.joint_epochs
        classes = Passes(forward_backward=count, strong=count) * (self.epochs - self.joint_epochs)
        return {"training": together + classes + Passes(forward_only=count)}

    def largest_batch(self, count: int) -> int:
        """Return the larger of the batches of both parts."""
        return max(2 * min(count, self.joint_batch), min(count, self.batch_size))
