"""DeepSelf, self-learning with multi-prototypes (Han, Luo and Wang, ICCV 2019), after the published description.

Legend: N examples, B batch, C classes, D features, P prototypes.
No code of the authors is known. What the description leaves open, and how it is filled: prototypes are the densest of
the images with eta below 0.95, out of the denser half of their class, then the densest of the others; correction begins
after a third of the epochs, where the learning rate first falls; labels are corrected before an epoch, from its images;
a class with fewer images than prototypes has each as one, and a class without images is never a corrected label.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.prototypes import PrototypeScores, density_peaks
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import predict_all, predict_rows
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Networks, Peer, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeepSelf:
    """Optimizer as for cross-entropy; prototypes as in the paper."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "learns each label together with the class whose prototypes are most similar",
        "Needs no rate of the noise and trusts no prediction: prototypes are images in dense places of the features.\n"
        "Made for photos whose labels come from text around them.",
        "Han et al., ICCV 2019", "all, as given, and corrected", cost_in_words="1, then 1.3 to 1.7",
        group="correction",
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "33.3333%"  # when the learning rate is divided by ten (epoch 5 of 15 in the paper), ...
    lr_second_drop: Duration = "66.6666%"  # ... and again (10)
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    begin: Duration = "33.3333%"  # epochs before labels are corrected
    correction_weight: Share = 0.5  # alpha, of the corrected label
    sampled: Count = 1280  # m: images of each class among which prototypes are sought
    num_prototypes: Count = 8  # p, of each class
    density_share: Share = 0.4  # S_c is the similarity that so many are not above
    most_similar: Share = 0.95  # eta from which an image is too near to a denser one

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network."""
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Correct the labels, once `begin` is reached; then learn both kinds of labels of all examples once."""
        (peer,) = state.peers
        meter = Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop, self.lr_second_drop)
        weight, corrected = 0.0, data.labels
        if epoch >= data.epochs_in(self.begin, self.batch_size, self.epochs):
            with meter.timed("examine"):
                weight, corrected = self.correction_weight, self.corrected(peer, data, epoch)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                given, other = (F.cross_entropy(logits, labels[rows]) for labels in (data.labels, corrected))
                loss = torch.lerp(given, other, weight)  # (1 - alpha) given + alpha other (Eq. 6)
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        changed = float((corrected != data.labels).float().mean())
        return meter.results() | {"rate/learn": rate, "changed": changed}

    def corrected(self, peer: Peer, data: TrainingData, epoch: int) -> Tensor:
        """Return for each image the class whose prototypes are most similar on average (Eq. 5). Shape: -> (N,)."""
        centers = self.centers(peer, data, epoch)
        scores = predict_all(nn.Sequential(peer.encoder, PrototypeScores(centers)), data, peer.engine)
        return keep_given(peer.engine.broadcast(scores.argmax(1)), data.labels, data.trusted)

    def centers(self, peer: Peer, data: TrainingData, epoch: int) -> Tensor:
        """Return the mean L2-normalized prototype of each class, NaN for a class without images. Shape: -> (C, D).

        The mean similarity to several prototypes is the similarity to their mean.
        """
        sample = data.generator("correct", epoch, "sample")
        means = []
        for label in range(data.num_classes):
            members = (data.labels == label).nonzero().squeeze(1)
            shuffled = members[torch.randperm(len(members), generator=sample, device=sample.device)]
            if not len(members):
                means.append(torch.full((peer.classifier.in_features,), float("nan"), device=data.labels.device))
                continue
            features = predict_rows(peer.encoder, data, shuffled[: self.sampled], peer.engine)
            chosen = density_peaks(features, self.num_prototypes, self.density_share, self.most_similar)
            means.append(F.normalize(features[chosen].float(), dim=1).mean(0))
        return peer.engine.broadcast(torch.stack(means))

    def passes(self, count: int, clean: float) -> Stages:
        """Count an epoch of training; from `begin` on two forward passes, as if prototypes were sought among all."""
        later = self.epochs - min(self.epochs, epochs_in(self.begin, count, self.batch_size, self.epochs))
        plain = Passes(forward_backward=count, weak=count) * self.epochs
        return {"training": plain + Passes(forward_only=2 * count) * later}
