"""MOIT+, multi-objective interpolation training (Ortego et al., CVPR 2021).

Legend: N examples, B batch, C classes, D features, K keys.
Contrastive learning and classification, both of mixed images; neighbors of the contrastive features tell which labels
are right. Then (the +) a new classifier is trained with the network on right labels alone.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.contrastive import interpolated_contrast
from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.mixmatch import mixup, partners
from scanmix.blocks.robust import bootstrap_targets
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.neighbors_agree import neighbors_agree
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import classify, inference
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class MOITState:
    """One network, a fresh one whose classifier is used for the last part, and a queue of earlier embeddings."""

    peers: list[Peer]
    fresh: list[Peer]
    queue: Tensor  # (K, 128) embeddings of earlier batches, the newest first; they take no gradient
    queue_labels: Tensor  # (K,) their labels
    p_clean: Tensor | None = None  # (1, N) 1 where neighbors have the label, else 0; None before the first look


def _projector(num_features: int) -> dict[str, nn.Module]:
    return {"projector": nn.Linear(num_features, 128)}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MOITPlus:
    """Defaults are those of the released code for CIFAR, of 250 + 70 epochs."""

    State: ClassVar[type[MOITState]] = MOITState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = staticmethod(_projector)
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "mixes images within a contrastive loss, whose features tell by neighbors which labels are right",
        "One network without pre-training. It keeps as many labels of every class, so classes should not differ much\n"
        "in size. The paper trains twice as long on right labels where 80 % are wrong.",
        "Ortego et al., CVPR 2021", "all in the contrastive loss; else those of neighbors, predictions for others",
        rows=2, remembers=True, cost_in_words="2 to 2.7, then up to 1.3", group="contrastive",
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 320  # E, both parts
    interpolation: Duration = "78.125%"  # end of the first part (250 of 320)
    queue_begin: Duration = "3 epochs"  # before the queue is compared with
    correction: Duration = "40.625%"  # epochs before predictions replace labels that neighbors do not have (130)
    bootstrap: Duration = "87.5%"  # epochs before the predictions join the labels of the last part (30 after its start)
    batch_size: Batch = 128  # B; two views of each make 2B rows a step
    learning_rate: Rate = 0.1  # of SGD in the first part
    lr_drop: Duration = "39.0625%"  # when it is divided by ten (125 of 320), ...
    lr_second_drop: Duration = "62.5%"  # ... and again (200)
    final_rate: Rate = 0.001  # of the last part
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    mixup_alpha: Weight = 1.0  # alpha of Beta(alpha, alpha)
    contrast_temperature: Rate = 0.1  # tau
    queue_per_class: Count = 100  # images in the queue for each class, both views of them
    num_neighbors: Count = 250  # k; at most the mean number of images of a class
    bootstrap_weight: Share = 0.2  # beta, of the predicted class in the last part

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> MOITState:
        """Return one fresh network with a projector, another for its classifier, and an empty queue."""
        peers = [
            make_peer(network, data, engine, name, self.momentum, self.weight_decay, _projector) for name in ("a", "b")
        ]
        return MOITState(peers[:1], peers[1:], torch.zeros(0, 128, device=engine.device), data.labels[:0])

    def epoch(self, state: MOITState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Learn all images with their labels or predictions; in the last part the right labels, with a new classifier.

        Neighbors are looked at before each epoch of the first part that needs to know, and once before the last part.
        """
        (peer,), meter = state.peers, Meter()
        last, correction = (
            data.epochs_in(part, self.batch_size, self.epochs) for part in (self.interpolation, self.correction)
        )
        if min(correction, last) <= epoch <= last:
            with meter.timed("examine"):
                state.p_clean = neighbors_agree(peer, "projector", data, self.num_neighbors).float().unsqueeze(0)
        if epoch < last:
            rate = decayed_rate(self, data, epoch, self.lr_drop, self.lr_second_drop)
            self._contrast(state, data, epoch, rate, meter)
        else:
            rate = self.final_rate
            if epoch == last:
                peer.classifier.load_state_dict(state.fresh[0].classifier.state_dict())
                peer.optimizer.state.clear()
            self._refine(state, data, epoch, rate, meter)
        kept = 1.0 if state.p_clean is None else float(state.p_clean.mean())
        return meter.results() | {"rate/learn": rate, "kept": kept}

    def passes(self, count: int, clean: float) -> Stages:
        """Count two views of each image, later also two forward passes; then right labels, later with a prediction."""
        last, correction, bootstrap = (
            min(self.epochs, epochs_in(part, count, self.batch_size, self.epochs))
            for part in (self.interpolation, self.correction, self.bootstrap)
        )
        right, look = max(1, round(clean * count)), Passes(forward_only=count)
        found = Passes(forward_backward=2 * count, contrastive=2 * count) * last
        found += look * 2 * max(0, last - correction) + look * (last < self.epochs)
        found += Passes(forward_backward=right, weak=right) * (self.epochs - last)
        found += Passes(forward_only=right) * (self.epochs - max(last, bootstrap))
        return {"training": found}

    def _contrast(self, state: MOITState, data: TrainingData, epoch: int, rate: float, meter: Meter) -> None:
        """Take a pass over all images: two views of each, each mixed within the batch."""
        (peer,) = state.peers
        queued = epoch >= data.epochs_in(self.queue_begin, self.batch_size, self.epochs)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                views = [data.views.contrastive(data.images[index], draws) for _ in range(2)]
                targets = self._targets(state, data, index)
                drawn = [partners(view, self.mixup_alpha, mix) for view in views]
                mixed = [torch.lerp(view[j], view, w) for view, (w, j) in zip(views, drawn, strict=True)]
                features = peer.encoder(torch.cat(mixed))
                logits = peer.all_gather(peer.classifier(features))
                embedded = peer.all_gather(F.normalize(peer.heads["projector"](features), dim=1))
                soft = peer.all_gather(torch.cat([torch.lerp(targets[j], targets, w) for w, j in drawn]))
                labels = peer.all_gather(data.labels[index].repeat(2))
                others = peer.all_gather(torch.cat([data.labels[index[j]] for _, j in drawn]))
                weights = peer.all_gather(torch.cat([torch.full_like(targets[:, 0], w) for w, _ in drawn]))
                pull = interpolated_contrast(
                    embedded, embedded, labels, others, weights, labels, self.contrast_temperature
                )
                size = 2 * self.queue_per_class * data.num_classes
                state.queue = torch.cat([embedded.detach(), state.queue])[:size]
                state.queue_labels = torch.cat([labels, state.queue_labels])[:size]
                if queued:
                    pull = pull + interpolated_contrast(
                        embedded, state.queue, labels, others, weights, state.queue_labels, self.contrast_temperature
                    )
                fit = soft_cross_entropy(logits, soft)
                meter.add("learn", loss=fit + pull, fit=fit, contrast=pull)
                peer.step(fit + pull, rate)

    def _targets(self, state: MOITState, data: TrainingData, index: Tensor) -> Tensor:
        """Return the given labels; where they were found not to be right, the predictions. Shape: (B,) -> (B, C)."""
        given = data.one_hot(index)
        if state.p_clean is None:
            return given
        (peer,) = state.peers
        with inference(peer, batch_statistics=False):
            predicted = classify(peer)(data.eval_view(index)).softmax(1)
        return torch.where(state.p_clean[0, index].unsqueeze(1) > 0, given, predicted)

    def _refine(self, state: MOITState, data: TrainingData, epoch: int, rate: float, meter: Meter) -> None:
        """Take a pass of MixUp over the right labels, later with a share of the predicted class (bootstrapping)."""
        (peer,) = state.peers
        assert state.p_clean is not None
        joined = epoch >= data.epochs_in(self.bootstrap, self.batch_size, self.epochs)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(state.p_clean[0].nonzero().squeeze(1), self.batch_size, order)):
                views, targets = data.views.weak(data.images[index], draws), data.one_hot(index)
                if joined:
                    with inference(peer, batch_statistics=False):
                        predicted = classify(peer)(data.eval_view(index))
                    trust = pinned(torch.full_like(predicted[:, 0], 1 - self.bootstrap_weight), data.trusts(index))
                    targets = bootstrap_targets(predicted, targets, trust.unsqueeze(1), hard=True)
                mixed, targets = mixup(views, targets, self.mixup_alpha, mix)
                logits = peer.logits(mixed)
                loss = soft_cross_entropy(logits, peer.all_gather(targets))
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
