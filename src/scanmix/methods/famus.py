"""FaMUS, a faster meta update strategy (Xu, Zhu, Jiang and Yang, CVPR 2021), on DivideMix as in its experiments.

Legend: N examples, B rows of a batch, L late tensors of weights. A small network weighs the loss of each row. It learns
from what a step of training so weighted does to the loss of labels that look right; only gradients of some late layers
are followed through the step, those whose gates are open.

What the published description leaves open, and how it is filled: a gate is a number that is learned, without a network
of its own; its draw has temperature 1, and what its layer's step is worth is its gradient; the gap of the last layer's
gradients is the squared difference of their means plus that of their standard deviations; the step ahead has the
learning rate of training; images of the meta batch have their given labels, one view each, and MixUp.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from scanmix.blocks.losses import prior_penalty, semi_supervised_losses, soft_cross_entropy
from scanmix.blocks.meta import (
    Weights,
    along,
    drawn_gates,
    gap_slope,
    gradient,
    outputs_at,
    pullback,
    stepped,
    weights_of,
)
from scanmix.blocks.mixmatch import mixup
from scanmix.blocks.selection import mean_one
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Count, Rate, Weight
from scanmix.data.batches import TrainingData, forever
from scanmix.distributed.meter import Meter
from scanmix.methods.dividemix import DivideMix, Weighing
from scanmix.methods.steps.division import divided_passes, passed_over
from scanmix.methods.steps.mixmatch import Mixed
from scanmix.networks.batch_norm import unsynchronized
from scanmix.networks.inference import classify
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer

LATE = 15
"""Tensors at the end of a network that have a gate: the last stage and the classifier of a PreAct-ResNet-18 (code)."""
ALWAYS = 2
"""Of these the last ones, whose gates stay open (code): the classifier."""


def _weighing_heads(num_features: int) -> dict[str, nn.Module]:
    """Return the network from a loss to its weight, and what opens the gates."""
    weigher = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
    return {"weigher": weigher, "gates": nn.ParameterList([torch.zeros(LATE)])}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FaMUS(DivideMix):
    """DivideMix whose rows are weighed by a network that learns to; defaults are those of Red Mini-ImageNet."""

    heads: ClassVar[Heads | None] = staticmethod(_weighing_heads)
    about: ClassVar[About] = About(
        "DivideMix, with the loss of each row weighed by a network that learns how on labels that look right",
        "Meta-learning at the price of two more passes: only some late layers are followed. Made for labels from the\n"
        "web. After the published description: the form of the gates is not known.",
        "Xu et al., CVPR 2021", "those that look right; the rest as unlabeled", networks=2, rows=4,
        cost_in_words="3 to 24", oracle="unlabeled_weight, mixup_alpha, lr_drop, lr_second_drop", group="meta",
    )  # fmt: skip

    unlabeled_weight: Weight = 50.0  # lambda_u (100 at 80 %)
    mixup_alpha: Weight = 1.5  # alpha (1 at 20 %, 2 at 80 %)
    weigher_rate: Rate = 1e-3  # learning rate of the network that weighs
    gate_rate: Rate = 0.1  # learning rate of the gates
    gate_budget: Count = 4  # gates that should be open ...
    gate_weight: Weight = 0.1  # ... and the weight of the squared difference
    gap_weight: Weight = 0.1  # of the gap between the last layer's gradients of training and of the meta batch

    def weighing(self, peer: Peer, data: TrainingData, clean: Tensor, stage: str, epoch: int) -> Weighing:
        """Return what weighs the rows of a batch, and learns to, on other images that look right.

        Shape: clean (N,) bool.
        """
        order, views, mix, gates = data.generators(stage, epoch, "order", "views", "mixup", "gates")
        chosen = map(peer.shard, forever(clean.nonzero().squeeze(1), self.batch_size, order))

        def row_weights(mixed: Mixed, labeled: Tensor, weight: float, rate: float, meter: Meter) -> Tensor:
            index, known = next(chosen), _known(peer, data, labeled, len(mixed.inputs))
            images, targets = mixup(
                data.views.weak(data.images[index], views), data.one_hot(index), self.mixup_alpha, mix
            )
            images, targets = peer.all_gather(images), peer.all_gather(targets)
            values, loss = self.look_ahead(peer, mixed, images, targets, weight, rate, gates, known)
            meter.add("weigh", loss=loss, gates=peer.heads.get_parameter("gates.0").sigmoid().mean())
            return pinned(weights_of_rows(peer, values).detach(), known)

        return row_weights

    def look_ahead(
        self, peer: Peer, mixed: Mixed, images: Tensor, targets: Tensor, weight: float, rate: float, draws: Generator,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Teach the weigher and the gates by a meta batch; return the losses of the rows, and that of the meta batch.

        Args:
            peer: the network.
            mixed: the batch to weigh.
            images: of the meta batch (M, ...).
            targets: theirs (M, C).
            weight: lambda_u.
            rate: size of the step ahead.
            draws: of the gates.
            known: rows whose labels are known to be right (B,); they have weight 1.

        Shape: -> (B,), ().
        """
        network, inputs, count = classify(peer), peer.all_gather(mixed.inputs), mixed.num_labeled
        late = dict(list(weights_of(network).items())[-LATE:])
        scale = torch.full((len(inputs),), 1 / count, device=inputs.device)
        scale[count:] = weight / max(1, len(inputs) - count)

        def train_losses(at: Weights) -> Tensor:
            logits = outputs_at(network, at, inputs)
            of_rows = semi_supervised_losses(logits, mixed.targets, count)
            return torch.cat([of_rows, self.prior_weight * prior_penalty(logits).unsqueeze(0)])

        def meta_loss(at: Weights) -> Tensor:
            logits = outputs_at(network, at, images)
            return soft_cross_entropy(logits, targets) + self.prior_weight * prior_penalty(logits)

        with unsynchronized(network):
            values, back = pullback(train_losses, late)
            weights = pinned(weights_of_rows(peer, values[:-1]), known)
            slope = back(torch.cat([weights.detach() * scale, values.new_ones(1)]))
            direction, loss = gradient(meta_loss, stepped(late, slope, rate))
            followed = self.gated_direction(peer, slope, direction, rate, draws)
            raises = along(back, followed, values)[:-1] * scale
        learned = list(peer.heads["weigher"].parameters())
        for part, uphill in zip(learned, torch.autograd.grad((weights * raises).sum(), learned), strict=True):
            part.detach().sub_(uphill, alpha=self.weigher_rate)
        return values[:-1], loss

    def gated_direction(self, peer: Peer, slope: Weights, direction: Weights, rate: float, draws: Generator) -> Weights:
        """Return what the weights of rows are judged along, with closed gates at 0, and teach the gates.

        A gate learns what the step of its layer is worth, and that `gate_budget` of them should be open.
        """
        scores = peer.heads.get_parameter("gates.0").detach()[-len(slope) :]
        opened, of_score = drawn_gates(scores, ALWAYS, draws)
        worth = torch.stack([-rate * (direction[name] * slope[name]).sum() for name in slope])
        budget = 2 * self.gate_weight * (opened.sum() - self.gate_budget)
        scores.sub_((worth + budget) * of_score, alpha=self.gate_rate)
        found = {name: -rate * gate * direction[name] for name, gate in zip(slope, opened, strict=True)}
        last = list(slope)[-ALWAYS]
        return found | {last: found[last] + self.gap_weight * gap_slope(slope[last], direction[last])}

    def passes(self, count: int, clean: float) -> Stages:
        """Count DivideMix; for each batch also a look at it, and at a meta batch as large as its labeled images."""
        learning = self.epochs - min(self.epochs, self.epochs_in(self.warmup, count))
        batches = divided_passes(count, clean, self.batch_size, self.minimum_steps, "weak", 1).forward_backward
        images = passed_over(count, clean, self.batch_size, self.minimum_steps)
        more = Passes(forward_backward=batches + images, weak=images) * (2 * learning)
        return {"training": super().passes(count, clean)["training"] + more}


def weights_of_rows(peer: Peer, losses: Tensor) -> Tensor:
    """Return the weigher's weights for losses, of mean 1, with a graph to its parameters. Shape: (B,) -> (B,)."""
    found: Tensor = peer.heads["weigher"](losses.unsqueeze(1)).squeeze(1)
    return mean_one(found)


def _known(peer: Peer, data: TrainingData, labeled: Tensor, rows: int) -> Tensor | None:
    """Return which rows of a batch, two of each labeled image first, have labels known to be right. Shape: -> (B,)."""
    trusted = data.trusts(labeled)
    if trusted is None:
        return None
    return peer.all_gather(torch.cat([trusted, trusted, trusted.new_zeros(rows - 2 * len(trusted))]))
