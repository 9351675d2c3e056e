"""DivideMix (Li, Socher, Hoi, ICLR 2020), Algorithm 1. Legend: N examples, B batch, P = 2 peers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.divide import clean_probability, divide, normalize_losses
from scanmix.blocks.losses import confidence_penalty, semi_supervised_loss
from scanmix.blocks.memory import remember
from scanmix.blocks.mixmatch import mixmatch
from scanmix.blocks.schedules import linear_ramp, step_decay
from scanmix.config import STRICT, Duration, epochs_of
from scanmix.data.batches import TrainingData, batches, paired
from scanmix.engine import Engine, Meter
from scanmix.networks.peer import Peer, Predictor, classify, examine, learning, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings


@dataclasses.dataclass
class DivideMixState:
    """All that one epoch hands to the next."""

    peers: list[Peer]
    history: Tensor
    """(H, P, N) normalized losses of the last epochs."""
    p_clean: Tensor | None = None
    """(P, N): what each peer believes of each label."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DivideMix:
    """Hyper-parameters of the CIFAR-10 runs; symbols are the paper's."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    label_free: ClassVar[bool] = False

    epochs: Annotated[int, Field(ge=1)] = 300
    """E, warm-up included."""
    warmup: Duration = "10 epochs"
    """Cross-entropy on all given labels (30 epochs for CIFAR-100)."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """B: of each of the two sets; two views of each image make 4B rows a step."""
    minimum_steps: Annotated[int, Field(ge=0)] = 0
    """A pass over a small clean set is repeated until it has so many steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """SGD."""
    lr_drop: Duration = "50%"
    """When the learning rate is divided by ten."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """On all parameters."""
    clean_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """tau (0.6 at 90 % in the paper, which is told the rate)."""
    minimum_clean: Annotated[int, Field(ge=1)] = 1
    """The likeliest clean examples are kept when the threshold leaves fewer."""
    loss_memory: Annotated[int, Field(ge=1)] = 1
    """Epochs of losses averaged before the mixture (5 at 90 % in the code, which is told the rate)."""
    sharpen_temperature: Annotated[float, Field(gt=0)] = 0.5
    """T."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 4.0
    """alpha."""
    unlabeled_weight: Annotated[float, Field(ge=0)] = 25.0
    """lambda_u (0, 25, 50 or 150 in the paper's Table 7, by the rate it is told)."""
    unlabeled_ramp: Annotated[float, Field(ge=0)] = 16.0
    """Epochs over which lambda_u grows from 0."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """lambda_r."""
    confidence_weight: Annotated[float, Field(ge=0)] = 0.0
    """Confidence penalty in warm-up (1 in the paper for asymmetric noise, which is told the type)."""
    guess_statistics: Literal["batch", "running"] = "batch"
    """Batch norm of the trained peer while it guesses."""

    def start(self, data: TrainingData, network: PreActResNetSettings, engine: Engine) -> DivideMixState:
        """Return two networks that differ by their initial weights."""
        peers = [
            make_peer(network, data, engine, name, momentum=self.momentum, weight_decay=self.weight_decay)
            for name in ("first", "second")
        ]
        return DivideMixState(peers, torch.zeros(0, 2, len(data), device=engine.device))

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm up, or divide, then train each peer on the other's division."""
        meter = Meter()
        if epoch < self.warmup_epochs(data):
            with meter.timed("warmup"):
                for peer in state.peers:
                    self._warm_up(peer, state, data, epoch, meter)
            return meter.results() | {"rate/warmup": self.learning_rate}
        with meter.timed("examine"):
            losses = torch.stack([normalize_losses(examine(peer, data).losses) for peer in state.peers])
            state.history = remember(state.history, losses, self.loss_memory)
            state.p_clean = torch.stack([clean_probability(row) for row in state.history.mean(0)])
        a, b = state.peers
        with meter.timed("learn"):
            self._learn(a, b, state.p_clean[1], state, data, epoch, meter)
            self._learn(b, a, state.p_clean[0], state, data, epoch, meter)
        return meter.results() | {"rate/learn": self._rate(epoch)}

    def predictor(self, state: DivideMixState) -> Predictor:
        """Sum of the peers' logits."""
        return Predictor([classify(peer) for peer in state.peers])

    def warmup_epochs(self, data: TrainingData) -> int:
        """Return the length of warm-up in epochs of this data."""
        return epochs_of(self.warmup, -(-len(data) // (2 * self.batch_size)), self.epochs)

    def _rate(self, epoch: int) -> float:
        return step_decay(self.learning_rate, 0.1, epoch, (epochs_of(self.lr_drop, 1, self.epochs),))

    def _warm_up(
        self, peer: Peer, state: DivideMixState, data: TrainingData, epoch: int, meter: Meter
    ) -> None:
        """Cross-entropy of the whole network on all given labels."""
        side = state.peers.index(peer)
        everything = torch.arange(len(data), device=data.labels.device)
        order, draws = (data.generator("warmup", epoch, f"{use} {side}") for use in ("order", "views"))
        for index in batches(everything, 2 * self.batch_size, order):
            with learning(peer):
                logits = peer.classifier(peer.encoder(data.views.weak(data.images[index], draws)))
            loss = F.cross_entropy(logits, data.labels[index])
            loss = loss + self.confidence_weight * confidence_penalty(logits)
            meter.add("warmup", loss=loss)
            peer.step(loss, self.learning_rate)

    def _learn(
        self,
        peer: Peer,
        other: Peer,
        p_clean: Tensor,
        state: DivideMixState,
        data: TrainingData,
        epoch: int,
        meter: Meter,
    ) -> None:
        """MixMatch over one pass of the set that the other peer calls clean."""
        side = state.peers.index(peer)
        order, draws, mix = (
            data.generator("learn", epoch, f"{use} {side}") for use in ("order", "views", "mixup")
        )
        clean = divide(p_clean, self.clean_threshold, self.minimum_clean)
        clean_set, noisy_set = clean.nonzero().squeeze(1), (~clean).nonzero().squeeze(1)
        steps = max(-(-len(clean_set) // self.batch_size), self.minimum_steps)
        pairs = paired(clean_set, noisy_set, self.batch_size, order, minimum_steps=self.minimum_steps)
        for step, (labeled, unlabeled) in enumerate(pairs):
            mixed = mixmatch(
                peer,
                other,
                [data.views.weak(data.images[labeled], draws) for _ in range(2)],
                [data.views.weak(data.images[unlabeled], draws) for _ in range(2)],
                data.one_hot(labeled),
                p_clean[labeled],
                temperature=self.sharpen_temperature,
                alpha=self.mixup_alpha,
                generator=mix,
                batch_statistics=self.guess_statistics == "batch",
            )
            ramp = linear_ramp(epoch + step / steps - self.warmup_epochs(data), self.unlabeled_ramp)
            with learning(peer):
                logits = peer.classifier(peer.encoder(mixed.inputs))
            loss, labeled_loss, unlabeled_loss, penalty = semi_supervised_loss(
                logits, mixed.targets, mixed.num_labeled, self.unlabeled_weight * ramp, self.prior_weight
            )
            meter.add("learn", labeled=labeled_loss, unlabeled=unlabeled_loss, prior=penalty, total=loss)
            peer.step(loss, self._rate(epoch))
