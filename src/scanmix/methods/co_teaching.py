"""Co-teaching (Han et al., NeurIPS 2018), Algorithm 1. Legend: N examples, B batch, P = 2 peers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.divide import clean_probabilities, noise_rate
from scanmix.blocks.schedules import linear_ramp
from scanmix.blocks.selection import small_loss
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class CoTeachingState:
    """Two networks, and the share of the labels that count as wrong."""

    peers: list[Peer]
    forget: float = 0.0  # tau: the estimate, or `forget_rate`
    p_clean: Tensor | None = None  # (P, N) probability that each label is right, by each peer; None with `forget_rate`


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoTeaching:
    """Each network learns the examples of small loss of the other; optimizer as for cross-entropy (paper: Adam)."""

    State: ClassVar[type[CoTeachingState]] = CoTeachingState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "each of two networks picks the small losses of a batch for the other",
        "Simple and steady up to a half of wrong labels. The paper knows the share of wrong labels; here it is\n"
        "estimated from the losses. The estimate is too low under heavy noise.",
        "Han et al., NeurIPS 2018", "those of small loss", networks=2, forward_backward=2, forward_only=2, rows=2,
        oracle="forget_rate", group="selection", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    forget_rate: Share | None = None  # tau; None: estimated while it rises (the paper sets the rate of the noise)
    gradual: Duration = "10 epochs"  # T_k: over which the share left out rises from 0 to tau

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> CoTeachingState:
        """Return two networks that differ by their initial weights."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        return CoTeachingState(peers, self.forget_rate or 0.0)

    def epoch(self, state: CoTeachingState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train both networks on all examples once; they see the same views."""
        meter = Meter()
        rising = data.epochs_in(self.gradual, self.batch_size, self.epochs)
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        left_out = state.forget * linear_ramp(epoch, rising)
        order, draws = data.generators("learn", epoch, "order", "views")
        for peer in state.peers:
            peer.train()
        with meter.timed("learn"):
            for index in map(state.peers[0].shard, batches(data.everything, self.batch_size, order)):
                views = data.views.weak(data.images[index], draws)
                logits = [peer.logits(views) for peer in state.peers]
                rows = state.peers[0].all_gather(index)
                labels, trusted = data.labels[rows], data.trusts(rows)
                losses = self.losses(logits, labels, epoch)
                for side, chosen in enumerate(self.choose(logits, losses, 1 - left_out, epoch, trusted)):
                    if not len(chosen):
                        continue
                    loss = losses[side][chosen].mean()
                    meter.add("learn", loss=loss)
                    state.peers[side].step(loss, rate)
        if self.forget_rate is None:
            with meter.timed("examine"):
                losses_of = torch.stack([per_sample_losses(peer, data).losses for peer in state.peers])
                state.p_clean = state.peers[0].engine.broadcast(pinned(clean_probabilities(losses_of), data.trusted))
                if epoch < rising:  # later the networks memorize, and the estimate gets too low
                    state.forget = noise_rate(state.p_clean, 0.5)
        return meter.results() | {"rate/learn": rate, "left_out": left_out}

    def losses(self, logits: list[Tensor], labels: Tensor, epoch: int) -> list[Tensor]:
        """Return the losses of each network, by which examples are chosen, and which it minimizes.

        Shape: two (B, C), (B,) -> two (B,).
        """
        return [F.cross_entropy(row, labels, reduction="none") for row in logits]

    def choose(
        self, logits: list[Tensor], losses: list[Tensor], share: float, epoch: int, trusted: Tensor | None = None
    ) -> list[Tensor]:
        """Return the rows that each network learns: labels known to be right, and the small losses of the other.

        Shape: two (B, C), two (B,), (B,) bool -> two (K,) int64.
        """
        return [small_loss(losses[side].detach(), share, trusted) for side in (1, 0)]
