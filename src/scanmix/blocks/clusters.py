"""Clusters and classes: which is which. Legend: N examples, C classes and as many clusters."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def match_clusters(clusters: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the one-to-one naming of clusters by classes that agrees with most labels (Hungarian algorithm).

    `clusters` and `labels` are (N,) int64; the labels may be noisy, as long as the right one is the commonest.
    Shape: -> (C,) int64, the class of each cluster.
    """
    from scipy.optimize import linear_sum_assignment

    pairs = clusters.cpu() * num_classes + labels.cpu()
    counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    _, classes = linear_sum_assignment(counts.numpy(), maximize=True)
    return torch.from_numpy(classes).to(clusters.device, torch.int64)


def rename_outputs(head: nn.Linear, classes: Tensor) -> None:
    """Move output c of a linear head to place `classes[c]`, in place. Shape: (C,), a permutation."""
    order = classes.argsort()
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())
