"""CORES2, a sample sieve with confidence regularization (Cheng et al., ICLR 2021).

Legend: N examples, B batch, C classes.
The first of its two phases: what the sieve leaves out is not used. The second, consistency training on all images, is
not built.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import PROBABILITY_FLOOR
from scanmix.blocks.schedules import linear_ramp
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class CoresState:
    """One network, and the shares of the given labels among those that were kept."""

    peers: list[Peer]
    shares: Tensor  # (C,) P(given label) among the labels that the last epoch kept
    p_clean: Tensor | None = None  # (1, N) 1 where the sieve kept the label, 0 elsewhere; None before the sieve


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cores:
    """Cross-entropy minus beta times its mean over labels; the sieve keeps labels that fit better than a random one."""

    State: ClassVar[type[CoresState]] = CoresState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "makes predictions confident, and leaves out labels that fit worse than a random one",
        "As cheap as `cross_entropy`, and no rate of the noise is needed. Made for mistakes that depend on the image.",
        "Cheng et al., ICLR 2021", "those that the sieve keeps",
        group="selection",
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 100  # E
    batch_size: Batch = 64  # B
    learning_rate: Rate = 0.1  # of SGD; divided by 1 + beta of the epoch, too (code)
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.0  # of SGD
    weight_decay: Weight = 0.0  # on all parameters
    confidence_weight: Weight = 2.0  # beta at its end
    plain: Duration = "10%"  # epochs before beta rises from 0 (code)
    rising: Duration = "30%"  # over which it rises (code)
    begin: Duration = "31%"  # epochs before the sieve (code)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> CoresState:
        """Return one fresh network, and the shares of all given labels."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        return CoresState([peer], data.one_hot(data.everything).mean(0))

    def epoch(self, state: CoresState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; from `begin` on, labels that fit worse than the mean label do not count."""
        (peer,) = state.peers
        meter = Meter()
        plain, rising, begin = (
            data.epochs_in(part, self.batch_size, self.epochs) for part in (self.plain, self.rising, self.begin)
        )
        beta = self.confidence_weight * linear_ramp(epoch - plain, rising) if epoch >= plain else 0.0
        rate = decayed_rate(self, data, epoch, self.lr_drop) / (1 + beta)
        order, draws = data.generators("learn", epoch, "order", "views")
        kept = torch.ones(len(data), device=data.labels.device)
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                given = F.cross_entropy(logits, data.labels[rows], reduction="none")
                of_each = -(logits.softmax(1) + PROBABILITY_FLOOR).log()  # (B, C) loss of each label; bounded (code)
                trusted = data.trusts(rows)
                if epoch >= begin:
                    kept[rows] = pinned((given <= of_each.mean(1)).float(), trusted)
                doubted = torch.ones_like(given) if trusted is None else (~trusted).float()
                losses = given - beta * doubted * (of_each @ state.shares)
                loss = (kept[rows] * losses).sum() / kept[rows].sum().clamp(min=1)
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        if epoch >= begin:
            state.p_clean = kept.unsqueeze(0)
        counted = kept @ data.one_hot(data.everything)
        state.shares = counted / counted.sum().clamp(min=1)
        return meter.results() | {"rate/learn": rate, "confidence_weight": beta, "kept": float(kept.mean())}
