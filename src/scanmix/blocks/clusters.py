"""Matching clusters with classes. Legend: N examples, C classes and as many clusters."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def match_clusters(clusters: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the one-to-one assignment of classes to clusters that agrees with most labels (Hungarian algorithm).

    The labels may be noisy, as long as the right one is the most frequent in each cluster. An empty cluster gets a
    class that is left over. The assignment is found on the CPU, which costs a device synchronization.
    Shape: clusters (N,) int64, labels (N,) int64 -> (C,) int64, the class of each cluster.
    """
    from scipy.optimize import linear_sum_assignment

    pairs = clusters.cpu() * num_classes + labels.cpu()
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    _, classes = linear_sum_assignment(counts.numpy(), maximize=True)
    return torch.from_numpy(classes).to(clusters.device, torch.int64)


def rename_outputs(head: nn.Linear, classes: Tensor) -> None:
    """Permute the outputs of a linear head in place: output c becomes output `classes[c]`.

    Shape: classes (C,) int64, a permutation of 0..C - 1.
    """
    order = classes.argsort()
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())
