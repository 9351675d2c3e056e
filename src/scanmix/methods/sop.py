"""SOP, sparse over-parameterization (Liu et al., ICML 2022). Legend: N examples, B batch, C classes.

Each example has a variable for what its label may have wrong: u_i^2 on the given class, -v_i^2 on the others. They are
small for labels that the network learns by itself, since gradient descent from near 0 keeps them sparse.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.blocks.robust import NO_ZERO
from scanmix.blocks.schedules import cosine
from scanmix.config import STRICT, About, Batch, Count, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer

FIRST = 1e-8
"""Standard deviation of u and v before training."""


@dataclasses.dataclass
class SOPState:
    """One network, and what each label may have wrong."""

    peers: list[Peer]
    u: Tensor  # (N, 1) its square is added to the prediction of the given class
    v: Tensor  # (N, C) its square is subtracted from the predictions of the others
    p_clean: Tensor | None = None  # always None: SOP does not divide


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SOP:
    """Defaults are those of the released code, with the rates of u and v for symmetric noise."""

    State: ClassVar[type[SOPState]] = SOPState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "learns beside the network what each label has wrong",
        "A strong method at the cost of `cross_entropy`. It keeps a number for each example and class.",
        "Liu et al., ICML 2022", remembers=True, oracle="given_rate, others_rate",
        group="correction",
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD, ...
    final_rate: Rate = 0.0002  # ... which falls along a cosine to this
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-3  # on all parameters of the network
    given_rate: Weight = 10.0  # learning rate of u (1 for CIFAR-100, 0.1 with asymmetric noise)
    others_rate: Weight = 10.0  # learning rate of v (100 with asymmetric noise)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> SOPState:
        """Return one fresh network; u and v are random and tiny."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        (draws,) = data.generators("start", 0, "noise")
        u, v = (
            FIRST * torch.randn(len(data), width, generator=draws, device=draws.device).to(engine.device)
            for width in (1, data.num_classes)
        )
        return SOPState([peer], u, v)

    def epoch(self, state: SOPState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; u and v of a batch take a step of plain gradient descent with the network."""
        (peer,) = state.peers
        meter = Meter()
        rate = cosine(self.learning_rate, self.final_rate, epoch / self.epochs)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = self.predictions(peer, data, index, draws)
                rows = peer.all_gather(index)
                given, u, v = data.one_hot(rows), state.u[rows].requires_grad_(), state.v[rows].requires_grad_()
                on, off = label_noise(u, v, given, data.trusts(rows))
                shifted = shifted_prediction(logits[0], on, off)
                fit = -(given * shifted.log()).sum(1).mean()
                apart = squared_noise(logits[0], on, off, given)
                loss = fit + apart + self.more(logits, shifted)
                meter.add("learn", loss=loss, fit=fit, apart=apart)
                peer.step(loss, rate)
                if u.grad is not None and v.grad is not None:
                    state.u[rows] = u.detach() - self.given_rate * u.grad
                    state.v[rows] = v.detach() - self.others_rate * v.grad
        noise = float((state.u.square() * data.one_hot(data.everything)).clamp(max=1).sum(1).mean())
        return meter.results() | {"rate/learn": rate, "given_noise": noise}

    def predictions(self, peer: Peer, data: TrainingData, index: Tensor, draws: Generator) -> list[Tensor]:
        """Return the logits of a weak view of each image of a batch. Shape: (B,) -> one (B, C)."""
        return [peer.logits(data.views.weak(data.images[index], draws))]

    def more(self, logits: list[Tensor], shifted: Tensor) -> Tensor | float:
        """Return the losses besides SOP's own: none. Shape: (B, C) each -> ()."""
        return 0.0


def label_noise(u: Tensor, v: Tensor, given: Tensor, trusted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return u^2 y and v^2 (1 - y), each in 0..1: what a label has too much, and too little (Eq. 4 and 5).

    `given` is y, the labels one-hot. Both are 0 for labels that are known to be right.
    Shape: (B, 1), (B, C), (B, C), (B,) bool -> (B, C), (B, C).
    """
    open_ = given.new_ones(len(given), 1) if trusted is None else (~trusted).to(given).unsqueeze(1)
    on, off = open_ * u.square() * given, open_ * v.square() * (1 - given)
    return on.clamp(0, 1 - NO_ZERO), off.clamp(0, 1 - NO_ZERO)


def shifted_prediction(logits: Tensor, on: Tensor, off: Tensor) -> Tensor:
    """Return p + on - off, scaled to sum 1: the prediction of the given label (Eq. 6). No gradient reaches `off`.

    Shape: three (B, C) -> (B, C), each at least `NO_ZERO`.
    """
    shifted = (logits.softmax(1) + on - off.detach()).clamp(min=NO_ZERO)
    return (shifted / shifted.sum(1, keepdim=True)).clamp(min=NO_ZERO)


def squared_noise(logits: Tensor, on: Tensor, off: Tensor, given: Tensor) -> Tensor:
    """Return the mean over rows of |onehot(argmax p) + on - off - y|^2, which v minimizes (Eq. 7).

    It moves v towards the difference of the label and the predicted class; only `off` has a gradient.
    Shape: four (B, C) -> ().
    """
    predicted = F.one_hot(logits.argmax(1), logits.shape[1]).to(given)
    return (predicted + on.detach() - off - given).square().sum(1).mean()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SOPPlus(SOP):
    """SOP, with a loss that holds the predictions of two views together, and one that keeps all classes."""

    about: ClassVar[About] = About(
        "SOP, and two views of each image that must agree",
        "As `sop`, for twice its passes.",
        "Liu et al., ICML 2022", rows=2, remembers=True, cost_in_words="2", oracle="given_rate, others_rate",
        group="correction",
    )  # fmt: skip

    consistency_weight: Weight = 0.9  # lambda_C
    balance_weight: Weight = 0.1  # lambda_B

    def predictions(self, peer: Peer, data: TrainingData, index: Tensor, draws: Generator) -> list[Tensor]:
        """Return the logits of a weak and a strong view, from one pass. Shape: (B,) -> two (B, C)."""
        images = data.images[index]
        features = peer.encoder(torch.cat([data.views.weak(images, draws), data.views.strong(images, draws)]))
        return [peer.all_gather(part) for part in peer.classifier(features).chunk(2)]

    def more(self, logits: list[Tensor], shifted: Tensor) -> Tensor | float:
        """Return lambda_C KL(weak || strong), without a gradient through the weak view, + lambda_B CE(uniform, mean).

        The mean is that of the shifted predictions of the batch (code). Shape: two (B, C), (B, C) -> ().
        """
        log_weak, log_strong = (F.log_softmax(row, 1) for row in (logits[0].detach(), logits[1]))
        apart = (log_weak.exp() * (log_weak - log_strong)).sum(1).mean()
        balance = -shifted.mean(0).clamp(min=NO_ZERO).log().mean()
        return self.consistency_weight * apart + self.balance_weight * balance

    def passes(self, count: int, clean: float) -> Stages:
        """Count a weak and a strong view of every image in each epoch."""
        return {"training": Passes(forward_backward=2 * count, weak=count, strong=count) * self.epochs}
