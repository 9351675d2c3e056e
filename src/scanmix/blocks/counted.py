"""Which labels the likelihood of the noise model is of, where a person has decided some.

A decided label stands in the likelihood as it was before, as if nobody had decided. People err where v is soft: decided
labels would choose a temperature at which too few of the others are wrong. Nor may they be left out: where the most
doubtful were decided first, those left would look too clean. What a person has found counts in T alone.

Legend: N examples, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Counted(NamedTuple):
    """Which labels count, and for what."""

    given: Tensor
    """(N,) labels, and where a person has decided those before."""
    counted: Tensor
    """(N,) bool, labels of the likelihood: all that were not known from the start."""
    others: Tensor
    """(N,) bool, labels that are not known to be right; all of them if there are none."""
    known: Tensor
    """(N,) bool, labels that are known to be right."""
    pairs: Tensor
    """(C, C) float64, decided labels, true class x label before."""
    found: int
    """Labels that a person has changed."""


def count_labels(labels: Tensor, trusted: Tensor | None, before: Tensor | None, num_classes: int) -> Counted:
    """Return which labels count. Shape: (N,), (N,) bool, (N,) with -1 where nobody has decided."""
    known = torch.zeros_like(labels, dtype=torch.bool) if trusted is None else trusted
    others = torch.ones_like(known) if bool(known.all()) else ~known
    asked = torch.zeros_like(known) if before is None else before >= 0
    given = labels if before is None else torch.where(asked, before, labels)
    cells = torch.bincount(labels[asked] * num_classes + given[asked], minlength=num_classes**2)
    pairs = cells.reshape(num_classes, num_classes).double()
    return Counted(given, others | asked, others, known, pairs, int((given != labels).sum()))
