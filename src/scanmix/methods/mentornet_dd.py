"""MentorNet DD (Jiang et al., ICML 2018): a curriculum that a small network learns. Legend: B batch, C classes.

What the published description leaves open, and how it is filled: the small network, the mentor, learns beside the
network that it weighs, in place of an earlier run, by the same optimizer (paper: Adam); a trusted label is an example
of a right one, and the loss of another class for the same image one of a wrong label; its layers are a recurrent one of
width 1 in both directions, five numbers for each percent of the progress, and one of 20; it has no input of the class,
which the released code sets to 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from scanmix.config import STRICT, About, Weight
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.contract import known_labels
from scanmix.methods.mentornet import MentorNet, MentorNetState
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads, Peer

BURN_IN = 0.18
"""Share of training in which all weights are 1, as by the curriculum (code)."""


def _mentor(num_features: int) -> dict[str, nn.Module]:
    """Return the parts of the mentor, which does not read features."""
    return {
        "recurrent": nn.LSTM(2, 1, bidirectional=True, batch_first=True),
        "progress": nn.Embedding(100, 5),
        "answer": nn.Sequential(nn.Linear(7, 20), nn.Tanh(), nn.Linear(20, 1)),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MentorNetDD(MentorNet):
    """MentorNet whose weights are what a small network, taught by trusted labels, says of each loss."""

    heads: ClassVar[Heads | None] = staticmethod(_mentor)
    about: ClassVar[About] = About(
        "weighs each loss by a small network that learns from labels known to be right",
        "Only for data with some trusted labels (`trusted`). After the published description: the authors teach the\n"
        "small network by an earlier run.",
        "Jiang et al., ICML 2018", "those that the small network takes for right", oracle="quantile",
        needs_trusted=True, group="meta",
    )  # fmt: skip

    lesson_weight: Weight = 1.0  # of the mentor's loss: factor of its learning rate

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> MentorNetState:
        """Return one fresh network with its mentor.

        Raises:
            UserError: no label is known to be right.
        """
        known_labels(data.trusted, "mentornet_dd")
        return super().start(data, network, engine)

    def curriculum(self, peer: Peer, losses: Tensor, threshold: Tensor, progress: float) -> Tensor:
        """Return the mentor's weights; all 1 in the first part, as by the curriculum. Shape: (B,), () -> (B,)."""
        if progress <= BURN_IN:
            return torch.ones_like(losses)
        return mentor_logits(peer, losses, threshold, progress).sigmoid().detach()

    def lesson(
        self, peer: Peer, logits: Tensor, data: TrainingData, rows: Tensor, moment: tuple[Tensor, float],
        draws: Generator,
    ) -> Tensor | float:  # fmt: skip
        """Return the mentor's cross-entropy for the trusted labels of a batch, and for another class of each.

        Args:
            peer: the network with its mentor.
            logits: of the batch, without a graph (B, C).
            data: labels, and which of them are trusted.
            rows: positions of the batch in the data (B,).
            moment: the threshold of small losses (), and the share of training that is over, 0..1.
            draws: of the other classes.

        Shape: -> ().
        """
        trusted, labels = known_labels(data.trusts(rows), "mentornet_dd"), data.labels[rows]
        shift = torch.randint(1, data.num_classes, labels.shape, generator=draws, device=labels.device)
        total = logits.new_zeros(())
        for asked, right in ((labels, 1.0), ((labels + shift) % data.num_classes, 0.0)):
            losses = F.cross_entropy(logits, asked, reduction="none")
            answers = mentor_logits(peer, losses, *moment)
            total = total + F.binary_cross_entropy_with_logits(
                answers, torch.full_like(answers, right), weight=trusted.to(answers), reduction="sum"
            )
        return self.lesson_weight * total / (2 * trusted.sum()).clamp(min=1)


def mentor_logits(peer: Peer, losses: Tensor, threshold: Tensor, progress: float) -> Tensor:
    """Return the mentor's logit that each label is right, from its loss, the threshold and the progress.

    Shape: (B,), () -> (B,).
    """
    pairs = torch.stack([losses, losses - threshold], 1).float()
    read = peer.heads["recurrent"](pairs.unsqueeze(1))[0].squeeze(1)  # (B, 2)
    place = peer.heads.get_parameter("progress.weight")[min(99, int(100 * progress))]
    found: Tensor = peer.heads["answer"](torch.cat([read, place.expand(len(read), -1)], 1)).squeeze(1)
    return found
