"""AugDesc (Nishi et al., CVPR 2021): DivideMix whose views for targets and for gradients are not the same.

Its variant WS: weak views for warm-up and for targets, strong ones for what is learned. Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.config import STRICT, About
from scanmix.data.batches import TrainingData
from scanmix.methods.dividemix import DivideMix
from scanmix.networks.passes import Passes, Stages


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugDesc(DivideMix):
    """All settings are DivideMix's, so that the two differ in their views alone."""

    about: ClassVar[About] = About(
        "DivideMix that learns strong views, with targets from weak ones",
        "As `dividemix`, for the time that strong views take. In the literature it gains most under heavy noise.",
        "Nishi et al., CVPR 2021", DivideMix.about.labels, networks=2, rows=4,
        cost_in_words=DivideMix.about.cost_in_words, oracle=DivideMix.about.oracle, group="semi-supervised",
    )  # fmt: skip

    def learned_views(self, data: TrainingData, index: Sequence[Tensor], draws: Generator) -> Sequence[Tensor]:
        """Return strong views, two of each image. Shape: (B,) -> (B, C, H, W) each."""
        return data.sample_views(data.views.strong, index, draws)

    def passes(self, count: int, clean: float) -> Stages:
        """Count DivideMix, and a strong view for each weak one after warm-up."""
        found = super().passes(count, clean)["training"]
        warmup = 2 * count * min(self.epochs, self.epochs_in(self.warmup, count))
        return {"training": found + Passes(strong=found.weak - warmup)}
