"""Co-teaching+ (Yu et al., ICML 2019): Co-teaching where the networks disagree. Legend: B batch."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.selection import small_loss
from scanmix.blocks.trust import pinned
from scanmix.config import STRICT, About, Count, Fidelity
from scanmix.methods.co_teaching import CoTeaching


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoTeachingPlus(CoTeaching):
    """A batch on which the networks agree everywhere is skipped."""

    about: ClassVar[About] = About(
        "Co-teaching where the two networks disagree",
        "The networks stay different for longer. With many classes and much noise they disagree mostly about\n"
        "wrong labels, and it falls behind `co_teaching`.",
        "Yu et al., ICML 2019", "those of small loss", networks=2, forward_backward=2, forward_only=2, rows=2,
        oracle="forget_rate", group="selection", measured=True,
    )  # fmt: skip

    alike: Count = 20  # epochs of plain Co-teaching before (5 for CIFAR-100)
    fidelity: Fidelity = "paper"  # "released": a second softmax in the loss after that, and all instead of none kept

    def losses(self, logits: list[Tensor], labels: Tensor, epoch: int) -> list[Tensor]:
        """Return cross-entropies. Shape: two (B, C), (B,) -> two (B,)."""
        twice = self.fidelity == "released" and epoch >= self.alike
        return super().losses([row.softmax(1) for row in logits] if twice else logits, labels, epoch)

    def choose(
        self, logits: list[Tensor], losses: list[Tensor], share: float, epoch: int, trusted: Tensor | None = None
    ) -> list[Tensor]:
        """Return the small losses of the other among the rows on which predictions differ or labels are known.

        Shape: two (B, C), two (B,), (B,) bool -> two (K,) int64.
        """
        if epoch < self.alike:
            return super().choose(logits, losses, share, epoch, trusted)
        differ = pinned(logits[0].argmax(1) != logits[1].argmax(1), trusted).nonzero().squeeze(1)
        if not len(differ):
            return [differ, differ]
        if self.fidelity == "released" and share * len(differ) < 1:
            share = 1.0
        known = None if trusted is None else trusted[differ]
        first, second = (differ[small_loss(row[differ].detach(), share, known)] for row in losses)
        return [second, first]
