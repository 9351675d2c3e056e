"""JoCoR, joint training with co-regularization (Wei et al., CVPR 2020), Algorithm 1. Legend: B batch, C classes."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.selection import small_loss
from scanmix.config import STRICT, About, Share
from scanmix.methods.co_teaching import CoTeaching


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JoCoR(CoTeaching):
    """Both networks learn the examples of small joint loss; optimizer and estimate of tau as for Co-teaching."""

    about: ClassVar[About] = About(
        "two networks with one loss, held to agree with each other",
        "Co-teaching with a single selection: examples on which both networks fit the label and agree. The paper\n"
        "knows the share of wrong labels; here it is estimated from the losses, and too low under heavy noise.",
        "Wei et al., CVPR 2020", "those of small loss", networks=2, forward_backward=2, forward_only=2, rows=2,
        oracle="forget_rate, agreement", group="selection",
    )  # fmt: skip

    agreement: Share = 0.9  # lambda, weight of the divergence of both predictions (0.85 for CIFAR-100)

    def losses(self, logits: list[Tensor], labels: Tensor, epoch: int) -> list[Tensor]:
        """Return (1 - lambda) (CE of both) + lambda (KL both ways), Eq. 2 to 4, once for each network.

        Both are the same number. Each has the gradient of its own network alone, so that the networks may be stepped
        one after the other. Shape: two (B, C), (B,) -> two (B,).
        """
        joint = []
        for own, other in ((logits[0], logits[1].detach()), (logits[1], logits[0].detach())):
            fit = sum(F.cross_entropy(row, labels, reduction="none") for row in (own, other))
            log_own, log_other = F.log_softmax(own, 1), F.log_softmax(other, 1)
            # KL(p || q) + KL(q || p) = sum_c (p_c - q_c) (log p_c - log q_c)
            divergence = ((log_own.exp() - log_other.exp()) * (log_own - log_other)).sum(1)
            joint.append((1 - self.agreement) * fit + self.agreement * divergence)
        return joint

    def choose(
        self, logits: list[Tensor], losses: list[Tensor], share: float, epoch: int, trusted: Tensor | None = None
    ) -> list[Tensor]:
        """Return the rows of small joint loss, the same for both networks. Shape: two (B,) -> two (K,) int64."""
        chosen = small_loss(losses[0].detach(), share, trusted)
        return [chosen, chosen]
