"""NCR, neighbor consistency regularization (Iscen et al., CVPR 2022). Legend: B batch, C classes, D features.

Images that are alike in the features of a batch are held to like predictions, whatever their labels are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import PROBABILITY_FLOOR
from scanmix.blocks.neighbors import mean_of_similar
from scanmix.blocks.schedules import cosine
from scanmix.blocks.trust import keep_given, pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, same_every_epoch, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Networks, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NCR:
    """Defaults are those of the released code for 20 % of wrong labels from the web."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "holds the prediction of each image to those of its neighbors in the batch",
        "As cheap as `cross_entropy`. A batch must hold several images of each class.",
        "Iscen et al., CVPR 2022", oracle="num_neighbors",
        group="regularization",
    )  # fmt: skip
    predictor = sum_of_peers
    passes = same_every_epoch
    largest_batch = rows_of_a_step

    epochs: Count = 130  # E
    batch_size: Batch = 128  # B; neighbors are searched among so many images
    learning_rate: Rate = 0.1  # of SGD, which falls along a cosine to 0
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    warmup: Duration = "8%"  # e: cross-entropy alone (code: 10 of 130 epochs)
    consistency_weight: Share = 0.3  # alpha: share of the loss that neighbors have
    num_neighbors: Count = 10  # k (code: 10, 100, 5 at 20, 40, 80 %, which it knows)
    consistency_temperature: Rate = 2.0  # T of the predictions that are compared
    fidelity: Fidelity = "paper"  # "released": KL of the neighbors' mean from the prediction, not the other way around

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; after warm-up neighbors have the share alpha of the loss."""
        (peer,) = state.peers
        meter = Meter()
        rate = cosine(self.learning_rate, 0.0, epoch / self.epochs)
        warming = epoch < data.epochs_in(self.warmup, self.batch_size, self.epochs)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                features = peer.encoder(data.views.weak(data.images[index], draws))
                logits, features = peer.all_gather(peer.classifier(features)), peer.all_gather(features)
                rows = peer.all_gather(index)
                given, trusted = data.labels[rows], data.trusts(rows)
                fit = F.cross_entropy(logits, given, reduction="none")
                apart = torch.zeros_like(fit) if warming else self.apart(logits, features, given, trusted)
                share = pinned(torch.full_like(fit, 1 - self.consistency_weight * (not warming)), trusted)
                loss = (share * fit + (1 - share) * apart).mean()
                meter.add("learn", loss=loss, cross_entropy=fit.mean(), apart=apart.mean())
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}

    def apart(self, logits: Tensor, features: Tensor, labels: Tensor, trusted: Tensor | None = None) -> Tensor:
        """Return T^2 KL(prediction || mean prediction of the neighbors) of each image, at temperature T.

        Gradients pass all predictions and similarities. A label that is known to be right stands in for the prediction
        of its image among neighbors. Shape: (B, C), (B, D), (B,), (B,) bool -> (B,).
        """
        log_own = F.log_softmax(logits / self.consistency_temperature, 1)
        shares = keep_given(log_own.exp(), F.one_hot(labels, logits.shape[1]).to(log_own), trusted)
        log_near = (mean_of_similar(features, shares, self.num_neighbors) + PROBABILITY_FLOOR).log()
        first, second = (log_own, log_near) if self.fidelity == "paper" else (log_near, log_own)
        return self.consistency_temperature**2 * (first.exp() * (first - second)).sum(1)
