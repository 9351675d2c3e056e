"""What predictions say of labels that the network was not trained on (INCV: Chen et al., ICML 2019).

Legend: N examples, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def wrong_share(agreement: float, mistaken_for: int) -> float:
    """Return e, the share of wrong labels that explains how often predictions and labels that were held out agree.

    Both are wrong with chance e, each for itself, and a wrong one is one of `mistaken_for` classes (C - 1, or 1 where
    each class is mistaken for one other): (1 - e)^2 + e^2 / mistaken_for = agreement (Eq. 4). It is the smaller
    solution; where agreement (0..1) is too small for any, the one of chance, mistaken_for / (mistaken_for + 1).
    """
    most = mistaken_for / (mistaken_for + 1)
    return most * (1 - math.sqrt(max(0.0, 1 - (1 - agreement) / most)))


def wrong_among_agreeing(share: float, mistaken_for: int) -> float:
    """Return e_S = e^2 / (e^2 + mistaken_for (1 - e)^2): the share of wrong labels among those that were predicted.

    `share` is e, and a prediction is wrong as often (Proposition 2).
    """
    wrong, right = share**2, mistaken_for * (1 - share) ** 2
    return wrong / (wrong + right) if wrong + right > 0 else 0.0


def mistakes_are_paired(labels: Tensor, predicted: Tensor, num_classes: int) -> bool:
    """Say whether classes are mistaken for one class each, and not for all others alike.

    Where labels and predictions differ, either may be wrong. So a label of paired mistakes leaves two predictions open,
    and one of even mistakes E - 1, where E is exp of the entropy of these predictions (C, if all classes are as
    frequent). What is left open is exp of the entropy of predictions given labels; at less than sqrt(2 (E - 1)) the
    mistakes are paired. With E of 3 or less the two are the same, and the answer is no.
    Costs a device synchronization. Shape: (N,), (N,) int64 -> bool.
    """
    differ = labels != predicted
    counts = torch.bincount(labels[differ] * num_classes + predicted[differ], minlength=num_classes**2).double()
    table = (counts / counts.sum().clamp(min=1)).view(num_classes, num_classes)
    of_predictions, of_labels, of_both = (
        float(torch.special.entr(p).sum()) for p in (table.sum(0), table.sum(1), table)
    )
    classes, left_open = math.exp(of_predictions), math.exp(of_both - of_labels)
    return classes > 3.01 and left_open < math.sqrt(2 * (classes - 1))
