"""Counts of images: how many go through a network, and how many views are made of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Passes:
    """How many images a stage of training handles, of all networks together; or the seconds that one image costs."""

    forward_backward: float = 0.0
    """Images that go through a network forward and backward."""
    forward_only: float = 0.0
    """Images that go through a network forward alone, without gradients."""
    weak: float = 0.0
    """Weakly augmented views that are made."""
    strong: float = 0.0
    """Strongly augmented views that are made."""
    contrastive: float = 0.0
    """Views of contrastive pre-training that are made."""

    def __add__(self, other: Passes) -> Passes:
        """Return the sum of both, count by count."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Passes(*(one + two for one, two in pairs))

    def __mul__(self, times: float) -> Passes:
        """Return every count multiplied by `times`."""
        return Passes(*(times * count for count in dataclasses.astuple(self)))

    def resting(self, share: float) -> Passes:
        """Return the counts where the encoder rests in a share (0..1) of the passes: those go forward alone."""
        spared = share * self.forward_backward
        return dataclasses.replace(
            self, forward_backward=self.forward_backward - spared, forward_only=self.forward_only + spared
        )


Stages: TypeAlias = dict[str, Passes]
"""Name of a stage of a run ("pre-training", "clustering", "training") -> its passes, in the order of the stages."""


def whole_batches(count: int, batch_size: int) -> int:
    """Return how many of `count` images are in full batches; all of them where there is no full batch.

    This is what a pass with `drop_last` of `scanmix.data.batches.batches` sees.
    """
    return count - count % batch_size if count >= batch_size else count
