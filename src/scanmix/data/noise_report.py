"""What label noise has done to labels, measured against the true ones. Legend: N examples, C classes."""

from __future__ import annotations

import pydantic.dataclasses
import torch
from torch import Tensor

from scanmix.config import STRICT


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseReport:
    """The label noise that was asked for and the result, measured against the true labels.

    Attributes:
        kind: "symmetric", "symmetric-exclusive", "asymmetric", "instance", "open-set", "semantic-..." or "file"; for
            labels that were wrong in the data set itself, "human" or "web".
        asked_rate: share of labels (0..1) that the noise selected; None if unknown.
        actual_rate: share of labels (0..1) that differ from the true ones, open-set images included.
        seed: seed of the draw; None if unknown.
        transition: (C, C) shares; rows are true classes, columns given labels. A row is zero for a class without
            examples. Open-set images are in no row.
    """

    kind: str
    asked_rate: float | None
    actual_rate: float
    seed: int | None
    transition: tuple[tuple[float, ...], ...]


def measure_transition(true_labels: Tensor, labels: Tensor, num_classes: int) -> tuple[tuple[float, ...], ...]:
    """Return the share of each true class (row) that was given each label (column); open-set images are in no row.

    Shape: (N,), (N,) int64 -> C tuples of C floats; rows sum to 1, or to 0 for a class without examples.
    """
    of_a_class = true_labels >= 0  # `OPEN_SET` is below
    cells = torch.bincount(true_labels[of_a_class] * num_classes + labels[of_a_class], minlength=num_classes**2)
    counts = cells.reshape(num_classes, num_classes).double()
    rows = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return tuple(tuple(row) for row in rows.tolist())


def changed_share(true_labels: Tensor, labels: Tensor) -> float:
    """Return the share of labels that differ from the true ones, 0..1. Shape: (N,), (N,) -> scalar; 0 if N is 0."""
    return (true_labels != labels).double().mean().item() if len(labels) else 0.0
