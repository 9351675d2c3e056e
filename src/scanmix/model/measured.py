"""How good predictions are: accuracy, balanced accuracy, and classes that have vanished. Legend: N examples."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Measured(NamedTuple):
    """How good predictions are; shares are 0..1."""

    accuracy: float
    """Share of right predictions."""
    balanced: float
    """Balanced accuracy: the mean, over the classes with examples, of the share of their examples that is found."""
    never_predicted: list[int]
    """Classes with examples that no example is predicted to be of: they have vanished."""


def measured(prediction: Tensor, truth: Tensor, num_classes: int) -> Measured:
    """Compare predictions with the truth. Shape: (N,) int64, (N,) int64, with N at least 1."""
    right = prediction == truth
    of_class, found = truth.bincount(minlength=num_classes), truth[right].bincount(minlength=num_classes)
    there = of_class > 0
    vanished = there & (prediction.bincount(minlength=num_classes) == 0)
    return Measured(
        right.double().mean().item(),
        (found[there].double() / of_class[there]).mean().item(),
        vanished.nonzero().squeeze(1).tolist(),
    )
