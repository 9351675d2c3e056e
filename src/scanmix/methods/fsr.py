"""FSR, fast sample re-weighting (Zhang and Pfister, ICCV 2021). Legend: N examples, B batch, C classes, D features.

Learning to reweight, without clean images: those whose labels a step of training fits best stand in for them. The step
through which the weights are found moves the classifier alone, so it costs nothing beside the forward passes.

What the published description leaves open, and how it is filled: the policy of the strong views is the recipe's; the
learning rate follows one cosine without restarts; no running average of the weights predicts; the step ahead has no
momentum; MixUp has alpha 1. The first look at a batch and at the queue is in evaluation mode, and what a step fits is
measured before and after it on the same images (the released code has mixed ones before and others after).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.meta import Weights, example_gradients, gradient, outputs_at, stepped, weights_of
from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.schedules import cosine
from scanmix.blocks.selection import lowest_of_each_class, mean_one
from scanmix.blocks.trust import keep_given, pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import inference
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer

cross_entropies = functools.partial(F.cross_entropy, reduction="none")


@dataclasses.dataclass
class FSRState:
    """One network, and what is remembered of each example."""

    peers: list[Peer]
    scores: Tensor  # (N,) minus the running average of what a step takes off the loss: low for labels that fit
    logits: Tensor  # (N, C) running average
    p_clean: Tensor | None = None  # always None: weights belong to a batch, not to an example


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FSR:
    """Defaults are those of CIFAR-10, with the network of the recipe (paper: Wide ResNet-28-10)."""

    State: ClassVar[type[FSRState]] = FSRState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "weights each loss by whether learning it helps with the labels that fit best",
        "Meta-learning for twice the passes of `cross_entropy`: neither clean images nor the rate of the noise are\n"
        "needed. After the published description: some settings of the authors are not known.",
        "Zhang and Pfister, ICCV 2021", "those that help the ones that fit best", cost_in_words="2", remembers=True,
        group="meta",
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 127  # E (63,500 steps)
    burn_in: Duration = "16%"  # epochs in which all weights are equal (20 of 127)
    batch_size: Batch = 100  # B
    learning_rate: Rate = 0.1  # of SGD, ...
    final_rate: Weight = 0.0  # ... which falls along a cosine to this
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 4e-4  # on all parameters
    queue: Count = 2000  # images that stand in for clean ones, equally many of each class
    probes: Count = 2  # images of the queue for each image of a batch (code: 200 for 100)
    step_ahead: Rate = 0.1  # size of the step of the classifier through which weights are found
    mixup_alpha: Weight = 1.0  # of MixUp's Beta(alpha, alpha)
    guess_weight: Weight = 2.0  # of the loss by the network's running predictions (1 for WebVision)
    guess_memory: Share = 0.1  # decay of these running logits
    score_memory: Share = 0.9  # decay of the scores

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> FSRState:
        """Return one fresh network; all examples have equal scores."""
        peer = make_peer(network, data, engine, "a", self.momentum, self.weight_decay)
        scores = torch.zeros(len(data), device=engine.device)
        return FSRState([peer], scores, torch.zeros(len(data), data.num_classes, device=engine.device))

    def epoch(self, state: FSRState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Fill the queue, then train on all examples once, weighted by their help for the queue."""
        (peer,), meter = state.peers, Meter()
        weighs = epoch >= data.epochs_in(self.burn_in, self.batch_size, self.epochs)
        order, draws, mix = data.generators("learn", epoch, "order", "views", "mixup")
        steps = list(batches(data.everything, self.batch_size, order))
        drawn = torch.multinomial(
            self._chances(state, data), self.probes * len(data), replacement=True, generator=order
        )
        probes = drawn.split([self.probes * len(index) for index in steps])
        with meter.timed("learn"):
            for step, (index, probe) in enumerate(zip(map(peer.shard, steps), map(peer.shard, probes), strict=True)):
                rate = cosine(self.learning_rate, self.final_rate, (epoch + step / len(steps)) / self.epochs)
                rows, given = peer.all_gather(index), data.one_hot(index)
                guesses = keep_given(state.logits[index].softmax(1), given, data.trusts(index))
                views = data.views.strong(data.images[index], draws)
                mixed, both = mixup(views, torch.cat([given, guesses], 1), self.mixup_alpha, mix, dominant=False)
                labels, guesses = peer.all_gather(both).split(data.num_classes, 1)
                looked = data.sample_views(data.views.weak, (index, probe), draws)
                with inference(peer, batch_statistics=False):
                    plain, known = map(peer.all_gather, peer.encoder(torch.cat(looked)).split([*map(len, looked)]))
                peer.train()
                features = peer.all_gather(peer.encoder(mixed))
                logits = peer.classifier(features)
                found, after = self.look_ahead(
                    peer.classifier, features.detach(), labels, known, data.labels[peer.all_gather(probe)]
                )
                weights = pinned(found if weighs else torch.ones_like(found), data.trusts(rows))
                fit = (weights * cross_entropies(logits, labels)).mean()
                agree = F.cross_entropy(logits, guesses)
                meter.add("learn", loss=fit, agree=agree, unused=(weights == 0).float().mean())
                before, later = peer.classifier(plain).detach(), outputs_at(peer.classifier, after, plain)
                gains = cross_entropies(before, data.labels[rows]) - cross_entropies(later, data.labels[rows])
                state.scores[rows] = torch.lerp(-gains, state.scores[rows], self.score_memory)
                state.logits[rows] = torch.lerp(before, state.logits[rows], self.guess_memory if epoch else 0.0)
                peer.step(fit + (self.guess_weight * agree if epoch else 0.0), rate)
        return meter.results() | {"rate/learn": rate}

    def look_ahead(
        self, head: nn.Module, features: Tensor, labels: Tensor, known: Tensor, known_labels: Tensor
    ) -> tuple[Tensor, Weights]:
        """Return the weight of each loss, of mean 1, and the head after a step on all of them.

        A weight is how much the step on this loss alone lowers that of the queue, and 0 where it raises it.

        Args:
            head: the classifier.
            features: of the mixed images (B, D).
            labels: theirs, soft (B, C).
            known: features of images of the queue (K, D).
            known_labels: theirs (K,).

        Shape: -> (B,).
        """

        def losses(at: Weights) -> Tensor:
            return cross_entropies(outputs_at(head, at, features), labels)

        before = weights_of(head)
        slope, _ = gradient(lambda at: losses(at).mean(), before)
        after = stepped(before, slope, self.step_ahead)
        direction, _ = gradient(lambda at: F.cross_entropy(outputs_at(head, at, known), known_labels), after)
        helps = -example_gradients(losses, before, direction, self.step_ahead)
        return mean_one(helps.clamp(min=0)), after

    def passes(self, count: int, clean: float) -> Stages:
        """Count a mixed image, a look at it, and looks at the queue, for each example of an epoch."""
        looks = (1 + self.probes) * count
        one = Passes(forward_backward=count, forward_only=looks, weak=looks, strong=count)
        return {"training": one * self.epochs}

    def _chances(self, state: FSRState, data: TrainingData) -> Tensor:
        """Return with what weight each example is drawn from the queue: its classes equally often. Shape: -> (N,)."""
        scores = state.scores if data.trusted is None else state.scores.masked_fill(data.trusted, float("-inf"))
        each = max(1, self.queue // data.num_classes)
        queue = lowest_of_each_class(scores, data.labels, data.num_classes, each)
        of_class = data.labels[queue].bincount(minlength=data.num_classes).clamp(min=1)
        return queue / of_class[data.labels]
