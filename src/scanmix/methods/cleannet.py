"""CleanNet (Lee, He, Zhang and Yang, CVPR 2018). Legend: N examples, B batch, C classes, K references, D features.

It learns, from labels that are known to be right, to say whether an image belongs to the class of its label, by
comparing it with references of that class; what it learns holds for classes without such labels, too. The classifier
weighs each label by that. It runs only where some labels are trusted.

What the published description leaves open, and how it is filled: classifier and verifier take turns in each epoch, and
features are those of the classifier, which first learns all labels as they are. A trusted label says which images
belong to their class; one that does not is made by pairing it with another class. Features may be negative here, so
their logarithm keeps the sign. One optimizer has both, so weight decay is the classifier's.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.trust import pinned
from scanmix.blocks.verification import class_references, compressed, verification_losses
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import known_labels, rows_of_a_step, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import predict_all
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Networks, Peer, make_peer


def _verifier(num_features: int) -> dict[str, nn.Module]:
    """Return the parts that compare an image with references of a class; widths are the code's."""
    return {
        "query": nn.Sequential(nn.Linear(num_features, 256), nn.Tanh(), nn.Linear(256, 128)),
        "decoder": nn.Sequential(nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, num_features)),
        "reference": nn.Sequential(nn.Linear(num_features, 512), nn.Tanh(), nn.Linear(512, 256), nn.Tanh()),
        "attention": nn.Linear(256, 1, bias=False),
        "prototype": nn.Linear(256, 128),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CleanNet:
    """Verifier as in the released code for Clothing1M; optimizer of the classifier as for cross-entropy."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = staticmethod(_verifier)
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "weighs each label by whether the image looks like its class, learned from labels known to be right",
        "Only for data with some trusted labels (`trusted`), which may be of some classes alone. After the published\n"
        "description: how the authors alternate is not known.",
        "Lee et al., CVPR 2018", "those that look like their class", cost_in_words="1, later 1.3", needs_trusted=True,
        group="meta",
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    burn_in: Duration = "25%"  # epochs in which all labels count
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    references: Count = 32  # K: centers of each class (code)
    verifier_steps: Count = 12_000  # in all, spread over the epochs after burn-in (code: 60,000 for a million images)
    verifier_batch: Count = 32  # trusted labels of a step, and as many others (code)
    verifier_rate: Rate = 0.01  # learning rate of the verifier, divided by ten after half of its epochs (code)
    margin: Share = 0.1  # rho: cosine above which an image belongs to a class (code)
    negative_weight: Weight = 5.0  # of pairs that do not belong together (code)
    others_weight: Weight = 0.1  # beta: of labels that are not trusted, as the verifier sees them itself (code)
    rebuild_weight: Weight = 0.1  # gamma: of the squared error of the decoder (code)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Return one fresh network with its verifier.

        Raises:
            UserError: no label is known to be right.
        """
        known_labels(data.trusted, "cleannet")
        heads = type(self).heads
        return Networks([make_peer(network, data, engine, "a", self.momentum, self.weight_decay, heads)])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train on all examples once; after the burn-in train the verifier before, and weigh labels by its answers."""
        (peer,) = state.peers
        meter = Meter()
        first = data.epochs_in(self.burn_in, self.batch_size, self.epochs)
        weights = torch.ones(len(data), device=data.labels.device)
        if epoch >= first:
            with meter.timed("verify"):
                features = compressed(predict_all(peer.encoder, data, peer.engine))
                (draws,) = data.generators("verify", epoch, "references")
                references = class_references(features, data.labels, data.num_classes, self.references, draws)
                references = peer.engine.broadcast(references)
                self.train_verifier(peer, features, references, data, epoch, first, meter)
                found = torch.cat([
                    similarities(peer, rows, labels, references).detach()
                    for rows, labels in zip(features.split(4096), data.labels.split(4096), strict=True)
                ])  # fmt: skip
                weights = pinned(peer.engine.broadcast(found).clamp(min=0), data.trusted)
                state.p_clean = pinned((weights >= self.margin).float(), data.trusted).unsqueeze(0)
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, views = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], views))
                rows = peer.all_gather(index)
                loss = (weights[rows] * F.cross_entropy(logits, data.labels[rows], reduction="none")).mean()
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate, "weight": float(weights.mean())}

    def train_verifier(
        self, peer: Peer, features: Tensor, references: Tensor, data: TrainingData, epoch: int, first: int, meter: Meter
    ) -> None:
        """Take this epoch's share of the steps on trusted labels, half of them with another class, and on others.

        Args:
            peer: the network, whose verifier learns.
            features: of all examples (N, D).
            references: of all classes (C, K, D).
            data: labels, and which of them are trusted.
            epoch: counted from 0.
            first: epoch in which the verifier began.
            meter: takes each loss as `verify/loss`.
        """
        turns = self.epochs - first
        rate = self.verifier_rate * (0.1 if epoch - first >= turns / 2 else 1.0)
        trusted, (draws,) = known_labels(data.trusted, "cleannet"), data.generators("verify", epoch, "pairs")
        known, others = trusted.nonzero().squeeze(1), (~trusted).nonzero().squeeze(1)
        others, size = others if len(others) else known, self.verifier_batch
        relevant = torch.arange(size, device=known.device) % 2 == 0
        for _ in range(-(-self.verifier_steps // turns)):
            pick, other = (
                rows[torch.randint(len(rows), (size,), generator=draws, device=rows.device)] for rows in (known, others)
            )
            shift = torch.randint(1, data.num_classes, (size,), generator=draws, device=known.device)
            asked = torch.where(relevant, data.labels[pick], (data.labels[pick] + shift) % data.num_classes)
            index = torch.cat([pick, other])
            found = similarities(peer, features[index], torch.cat([asked, data.labels[other]]), references)
            of_known, of_others = found.split(size)
            loss = verification_losses(of_known, relevant, self.negative_weight, self.margin).mean()
            believed = of_others.detach() >= self.margin
            loss = (
                loss
                + self.others_weight
                * verification_losses(of_others, believed, self.negative_weight, self.margin).mean()
            )
            rebuilt = peer.heads["decoder"](peer.heads["query"](features[index]))
            loss = loss + self.rebuild_weight * F.mse_loss(rebuilt, features[index])
            meter.add("verify", loss=loss)
            peer.step(loss, rate)

    def passes(self, count: int, clean: float) -> Stages:
        """Count an epoch of training, and after the burn-in a look at all features."""
        looks = self.epochs - min(self.epochs, epochs_in(self.burn_in, count, self.batch_size, self.epochs))
        every = Passes(forward_backward=count, weak=count) * self.epochs
        return {"training": every + Passes(forward_only=count) * looks}


def similarities(peer: Peer, features: Tensor, labels: Tensor, references: Tensor) -> Tensor:
    """Return the cosine of each image with the class of its label (Eq. 1 and 2).

    The references of a class are summed by attention. Shape: (B, D), (B,), (C, K, D) -> (B,).
    """
    heads = peer.heads
    hidden = heads["reference"](references)  # (C, K, 256)
    classes = heads["prototype"]((heads["attention"](hidden).softmax(1) * hidden).sum(1))  # (C, 128)
    return F.cosine_similarity(heads["query"](features), classes[labels], dim=1)
