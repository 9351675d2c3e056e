"""SSR, sample selection and relabeling (Feng, Tzimiropoulos and Patras, BMVC 2022). Legend: N examples, B batch.

One network, no warm-up, no pre-training. SSR+ adds a consistency loss on all images, without labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.schedules import cosine
from scanmix.blocks.selection import wins_vote, with_every_class
from scanmix.blocks.trust import keep_given, pinned
from scanmix.config import STRICT, About, Batch, Count, Rate, Share, Weight
from scanmix.data.batches import TrainingData, forever
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import predict_all
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Networks, Peer, make_peer
from scanmix.pretrain.stages import candidate_neighbors


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SSR:
    """Defaults are those of CIFAR-10 with half of the labels wrong or more."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    clean_threshold: ClassVar[float | None] = 0.5
    heads: ClassVar[Heads | None] = None
    about: ClassVar[About] = About(
        "relabels where it is confident, and learns labels that a vote of their neighbors confirms",
        "The most accurate for its cost in the literature: one network and no pre-training. Its first votes use\n"
        "random features, so images of one class must look alike.",
        "Feng et al., BMVC 2022", "those that neighbors confirm; confident predictions in place of others",
        rows=2, cost_in_words="2.3", oracle="relabel_threshold", group="semi-supervised", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B; two views of each make 2B rows a step
    learning_rate: Rate = 0.02  # of SGD, ...
    final_rate: Rate = 0.0004  # ... which falls along a cosine to this
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    relabel_threshold: Share = 0.8  # theta_r: a prediction above it replaces the label (0.9 at 20 % noise)
    select_threshold: Share = 1.0  # theta_s: share of the best vote that a label must have; 1: it must win
    num_neighbors: Count = 200  # k
    include_self: bool = True  # the image is one of its k voters (code)
    mixup_alpha: Weight = 4.0  # alpha of MixUp's Beta(alpha, alpha)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay, type(self).heads)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Relabel, select labels by the vote of neighbors, then take N / B steps on them, each class equally often."""
        (peer,) = state.peers
        meter = Meter()
        with meter.timed("examine"):
            features = predict_all(peer.encoder, data, peer.engine)
            labels = self._relabel(peer.classifier(features).detach().softmax(1), data.labels)
            labels = keep_given(labels, data.labels, data.trusted)
            others = max(1, min(self.num_neighbors - self.include_self, len(data) - 1))
            voters = candidate_neighbors(nearest_neighbors(features, others), self.include_self)
            chosen = wins_vote(labels, voters, data.num_classes, self.select_threshold)
            chosen = with_every_class(chosen, labels, data.num_classes)
            chosen = pinned(chosen, data.trusted)
            state.p_clean = peer.engine.broadcast((chosen & (labels == data.labels)).float().unsqueeze(0))
            labels, chosen = peer.engine.broadcast(labels), peer.engine.broadcast(chosen)
        steps = max(1, len(data) // self.batch_size)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        weights = chosen / labels[chosen].bincount(minlength=data.num_classes).clamp(min=1)[labels]
        drawn = torch.multinomial(weights, steps * self.batch_size, replacement=True, generator=order)
        anything = forever(data.everything, self.batch_size, order)
        peer.train()
        with meter.timed("learn"):
            for step, index in enumerate(map(peer.shard, drawn.split(self.batch_size))):
                rate = cosine(self.learning_rate, self.final_rate, (epoch + step / steps) / self.epochs)
                views = torch.cat(data.sample_views(data.views.strong, (index, index), draws))
                targets = F.one_hot(labels[index].repeat(2), data.num_classes).float()
                mixed, targets = mixup(views, targets, self.mixup_alpha, mix)
                logits = peer.logits(mixed)
                fit = soft_cross_entropy(logits, peer.all_gather(targets))
                loss = fit + self.consistency(peer, data, anything, draws)
                meter.add("learn", loss=loss, fit=fit)
                peer.step(loss, rate)
        shares = {"chosen": float(chosen.float().mean()), "relabeled": float((labels != data.labels).float().mean())}
        return meter.results() | {"rate/learn": rate} | shares

    def consistency(
        self, peer: Peer, data: TrainingData, anything: Iterator[Tensor], draws: Generator
    ) -> Tensor | float:
        """Return 0: only SSR+ has a consistency loss. Shape: scalar."""
        return 0.0

    def passes(self, count: int, clean: float) -> Stages:
        """Count a forward pass over all examples, then steps on two strong views of each image of a batch."""
        rows = self.batch_size * max(1, count // self.batch_size)
        return {"training": Passes(forward_only=count, forward_backward=2 * rows, strong=2 * rows) * self.epochs}

    def _relabel(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Return confident predictions, and the given label elsewhere. Shape: (N, C), (N,) -> (N,)."""
        confidence, predicted = probabilities.max(1)
        return torch.where(confidence > self.relabel_threshold, predicted, labels)


def _two_heads(num_features: int) -> dict[str, nn.Module]:
    """Return SimSiam's heads: a projector, and a predictor of the projection of another view."""

    def perceptron(inputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128))

    return {"projector": perceptron(num_features), "predictor": perceptron(128)}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SSRPlus(SSR):
    """SSR, and a loss that pulls the projections of a strong and a weak view of every image together."""

    heads: ClassVar[Heads | None] = staticmethod(_two_heads)
    about: ClassVar[About] = About(
        "SSR, and a consistency loss of strong and weak views of all images",
        "As `ssr`, for 1.6 times its passes; the more labels are wrong, the more it can add.",
        "Feng et al., BMVC 2022", "those that neighbors confirm; confident predictions in place of others",
        rows=3, cost_in_words="3.7", oracle="relabel_threshold", group="semi-supervised", measured=True,
    )  # fmt: skip

    consistency_weight: Weight = 1.0  # of the consistency loss

    def consistency(
        self, peer: Peer, data: TrainingData, anything: Iterator[Tensor], draws: Generator
    ) -> Tensor | float:
        """-cos(predictor(projector(strong view)), projector(weak view)), without a gradient through the second.

        Shape: scalar.
        """
        images = data.images[peer.shard(next(anything))]
        projector, predictor = peer.heads["projector"], peer.heads["predictor"]
        predicted = predictor(projector(peer.all_gather(peer.encoder(data.views.strong(images, draws)))))
        with torch.no_grad():
            target = projector(peer.all_gather(peer.encoder(data.views.weak(images, draws))))
        return -self.consistency_weight * F.cosine_similarity(predicted, target).mean()

    def passes(self, count: int, clean: float) -> Stages:
        """Count SSR, and in each step as many other images in a strong and a weak view."""
        rows = self.batch_size * max(1, count // self.batch_size)
        both = Passes(forward_only=rows, forward_backward=rows, strong=rows, weak=rows) * self.epochs
        return {"training": super().passes(count, clean)["training"] + both}
