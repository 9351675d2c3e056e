"""PES-semi (Bai et al., NeurIPS 2021): progressive early stopping, then MixMatch. Legend: N examples, B batch.

The head, which is last and memorizes first, is trained again from fresh weights on features that were stopped early.
After that, labels that the network predicts are used, and all other images are used without a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import probability_mse
from scanmix.blocks.mixmatch import mixup, sharpen
from scanmix.blocks.schedules import cosine, linear_ramp
from scanmix.blocks.selection import class_weights
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, forever
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.pes import PESState
from scanmix.methods.steps.early_stopping import agrees, early_epoch, last_layers, reinit_and_refit
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import inference
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PESSemi:
    """Only the head is trained again, as for CIFAR-10."""

    State: ClassVar[type[PESState]] = PESState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "stops early, trains a new head, and goes on with the labels that it predicts",
        "Simple and strong up to 80 % in the literature. `warmup` must end before labels are memorized.",
        "Bai et al., NeurIPS 2021", "those predicted; the rest as unlabeled", rows=2, cost_in_words="1, then 3",
        oracle="unlabeled_weight", group="semi-supervised", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 300  # E
    warmup: Duration = "20 epochs"  # T1, on all labels (35 for CIFAR-100)
    refit: Count = 5  # T2: passes that train the new head alone, after warm-up
    refit_rate: Rate = 1e-4  # of Adam in them
    batch_size: Batch = 128  # B, labeled and unlabeled images together; two views of each make 2B rows a step
    learning_rate: Rate = 0.02  # of SGD, ...
    final_rate: Rate = 2e-4  # ... which falls along a cosine to this
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    sharpen_temperature: Rate = 0.5  # T
    mixup_alpha: Weight = 4.0  # alpha of Beta(alpha, alpha), ...
    late_alpha: Weight = 0.75  # ... and in the second half of training
    unlabeled_weight: Weight = 15.0  # lambda_u (5, 15, 25 at 20, 50, 80 %, which the paper knows)
    unlabeled_ramp: Weight = 16.0  # epochs over which it grows from 0
    fidelity: Fidelity = "paper"  # "released": SGD never moves the new head, because it was built before

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> PESState:
        """Return one fresh network, and another whose head will be used."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        return PESState(peers[:1], peers[1:])

    def epoch(self, state: PESState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm up; or, after the refit of the head, divide the labels by the predictions and learn from both parts."""
        (peer,), meter = state.peers, Meter()
        rate = cosine(self.learning_rate, self.final_rate, epoch / self.epochs)
        begin = data.epochs_in(self.warmup, self.batch_size, self.epochs)
        if epoch < begin:
            return early_epoch(peer, data, epoch, self.batch_size, rate)
        if epoch == begin:
            with meter.timed("refit"):
                reinit_and_refit(
                    peer, state.fresh[0], "head", self.refit, self.refit_rate, self.batch_size, data, meter
                )
        last_layers(peer, "head").requires_grad_(self.fidelity == "paper")
        with meter.timed("examine"):
            state.p_clean = peer.engine.broadcast(agrees(peer, data, epoch).float().unsqueeze(0))
        with meter.timed("learn"):
            self._train_pass(peer, state.p_clean[0] > 0, data, epoch, epoch - begin, rate, meter)
        return meter.results() | {"rate/learn": rate}

    def passes(self, count: int, clean: float) -> Stages:
        """Count warm-up, a new head, then two forward passes over all examples and steps with two views of each image.

        Targets of the unlabeled images take forward passes too.
        """
        first = min(self.epochs, epochs_in(self.warmup, count, self.batch_size, self.epochs))
        head = Passes(forward_only=count, weak=count) * (self.refit if first < self.epochs else 0)
        unlabeled = round(self.batch_size * min(0.5, 1 - clean))
        steps = max(1, count // self.batch_size)
        rows = 2 * self.batch_size * steps
        turn = Passes(forward_only=2 * count + 2 * unlabeled * steps, forward_backward=rows, weak=2 * count + rows)
        warmup = Passes(forward_backward=count, weak=count) * first
        return {"training": warmup + head + turn * (self.epochs - first)}

    def _train_pass(
        self, peer: Peer, agree: Tensor, data: TrainingData, epoch: int, since: int, rate: float, meter: Meter
    ) -> None:
        """Take N / B steps of MixMatch; each batch has the same share of unlabeled images, at most a half."""
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        labeled, unlabeled = agree.nonzero().squeeze(1), (~agree).nonzero().squeeze(1)
        if not len(labeled):  # no label is predicted: take all labels as they are
            labeled, unlabeled = unlabeled, labeled
        few = round(self.batch_size * min(0.5, len(unlabeled) / len(data)))
        weights = class_weights(data.labels[labeled], data.num_classes)
        alpha = self.mixup_alpha if epoch < self.epochs // 2 else self.late_alpha
        steps = max(1, len(data) // self.batch_size)
        known, unknown = forever(labeled, self.batch_size - few, order), forever(unlabeled, few, order)
        for step in range(steps):
            x = peer.shard(next(known))
            u = peer.shard(next(unknown)) if few else unlabeled[:0]
            views = data.sample_views(data.views.weak, (x, x, u, u), draws)
            targets = [data.one_hot(x)] * 2 + [self._guess(peer, views[2:])] * 2
            mixed, soft = mixup(torch.cat(views), torch.cat(targets), alpha, mix)
            peer.train()
            logits = peer.classifier(peer.encoder(mixed))
            count = 2 * len(x)
            of_x, of_u = (peer.all_gather(part) for part in (logits[:count], logits[count:]))
            fit = -(weights * peer.all_gather(soft[:count]) * F.log_softmax(of_x, 1)).sum(1).mean()
            gap = probability_mse(of_u, peer.all_gather(soft[count:])) if len(of_u) else fit.new_zeros(())
            weight = self.unlabeled_weight * linear_ramp(since + step / steps, self.unlabeled_ramp)
            loss = fit + weight * gap
            meter.add("learn", loss=loss, labeled=fit, unlabeled=gap)
            peer.step(loss, rate)

    def _guess(self, peer: Peer, views: Sequence[Tensor]) -> Tensor:
        """Return the sharpened mean prediction of two views. Shape: twice (B, C, H, W) -> (B, C)."""
        if not len(views[0]):
            return views[0].new_zeros(0, peer.classifier.out_features)
        with inference(peer, batch_statistics=False):
            prediction = torch.stack([peer.classifier(peer.encoder(view)).softmax(1) for view in views]).mean(0)
        return sharpen(prediction, self.sharpen_temperature)
