"""Selecting and weighting the examples to train on. Legend: N examples, B batch, K neighbors or selected, C classes."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def small_loss(losses: Tensor, share: float, trusted: Tensor | None = None) -> Tensor:
    """Return the positions of the floor(share * B) smallest losses, at least one, smallest first.

    The small-loss trick of Co-teaching (Han et al., NeurIPS 2018). `share` in 0..1; equal losses keep their order,
    and NaN counts as the largest. Losses of labels that are known to be right count as the smallest, and all of them
    are returned. Shape: (B,), (B,) bool -> (K,) int64.
    """
    count = max(1, math.floor(share * len(losses) + 1e-9))  # a product such as 0.29 * 100 falls just below 29
    if trusted is not None:
        losses = losses.masked_fill(trusted, float("-inf"))
        count = max(count, int(trusted.sum()))
    return losses.argsort(stable=True)[:count]


def weight_of_small_losses(losses: Tensor, threshold: float | Tensor, progress: float) -> Tensor:
    """Return the weights, in 0..1, of MentorNet's predefined curriculum (Jiang et al., ICML 2018).

    `progress` is the share 0..1 of training that is over. Up to 0.18 every example has weight 1; below 0.9 those have
    weight 1 whose loss is not above the threshold, and others 0; later a weight is 1 - (loss - threshold), clipped.
    Shape: (B,) -> (B,).
    """
    if progress <= 0.18:
        return torch.ones_like(losses)
    if progress < 0.9:
        return (losses <= threshold).to(losses.dtype)
    return (1 - (losses - threshold)).clamp(0, 1)


def percentile(losses: Tensor, share: float) -> Tensor:
    """Return the loss below which this share (0..1) of the batch lies, interpolated linearly; NaN if a loss is NaN.

    Shape: (B,) -> () float64.
    """
    return torch.quantile(losses.detach().float(), share).double()


def wins_vote(labels: Tensor, neighbors: Tensor, num_classes: int, threshold: float) -> Tensor:
    """Say which labels get at least `threshold` (0..1) times the largest vote of their neighbors' labels.

    SSR (Feng et al., BMVC 2022). A neighbor's vote has the weight 1 / number of examples with its label, so that rare
    classes are not outvoted. A label with the largest vote always passes. Memory grows with N x C.
    Shape: (N,) int64, (N, K) int64 -> (N,) bool.
    """
    frequency = labels.bincount(minlength=num_classes).clamp(min=1).float()
    votes = torch.zeros(len(labels), num_classes, device=labels.device)
    votes.scatter_add_(1, labels[neighbors], torch.ones(neighbors.shape, device=labels.device))
    votes /= frequency
    of_label = votes.gather(1, labels.unsqueeze(1)).squeeze(1)
    return of_label >= threshold * votes.amax(1)


def with_every_class(chosen: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return a choice of examples, and all those of each class of which none was chosen.

    A network that never sees a class forgets it, and then chooses none of its labels again: a rare class would vanish.
    Shape: (N,) bool, (N,) int64 -> (N,) bool.
    """
    return chosen | (labels[chosen].bincount(minlength=num_classes) == 0)[labels]


def class_weights(labels: Tensor, num_classes: int, most: float = 3.0) -> Tensor:
    """Return a weight for each class: the mean number of its examples over all classes, divided by its own number.

    PES (Bai et al., NeurIPS 2021). Weights are at most `most`; a class without examples gets 0 and is left out of
    the mean. Shape: (N,) int64 -> (C,).
    """
    counts = labels.bincount(minlength=num_classes).float()
    weights = counts[counts > 0].mean() / counts.clamp(min=1)
    return torch.where(counts > 0, weights.clamp(max=most), 0.0)


def moving_percentile(before: float | Tensor | None, losses: Tensor, share: float, decay: float) -> Tensor:
    """Return decay * before + (1 - decay) * the percentile of this batch; the latter alone where `before` is None.

    `share` and `decay` in 0..1. Shape: (B,) -> () float64.
    """
    now = percentile(losses, share)
    return now if before is None else decay * before + (1 - decay) * now


def lowest_of_each_class(values: Tensor, labels: Tensor, num_classes: int, count: int | Tensor) -> Tensor:
    """Say which examples have the `count` lowest values of their class; all of a class that has fewer.

    Equal values keep their order. Shape: (N,), (N,) int64 -> (N,) bool.
    """
    order = values.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]  # class by class, lowest first
    sizes = labels.bincount(minlength=num_classes)
    place = torch.arange(len(labels), device=labels.device) - (sizes.cumsum(0) - sizes)[labels[order]]
    return torch.zeros_like(labels, dtype=torch.bool).scatter_(0, order, place < count)


def mean_one(weights: Tensor) -> Tensor:
    """Return weights that are not negative, scaled to a mean of 1; ones where all are 0. Shape: (B,) -> (B,)."""
    mean = weights.mean()
    return torch.where(mean > 0, weights / mean.clamp(min=torch.finfo(weights.dtype).tiny), 1.0)


def groups_of_classes(labels: Tensor, num_classes: int, size: int, generator: Generator) -> Tensor:
    """Return groups, in random order, of `size` random examples of one class each; every example is in one.

    The last group of a class is filled with others of it, or with the same again where there are fewer. It reads the
    labels on the host, so it is for once an epoch. Shape: (N,) int64 -> (G, size) int64 positions.
    """
    found = []
    for label in range(num_classes):
        rows = (labels == label).nonzero().squeeze(1)
        order = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
        wanted = -(-len(rows) // size) * size
        found.append(order.repeat(1 + wanted // max(1, len(rows)))[:wanted].view(-1, size))
    groups = torch.cat(found)
    return groups[torch.randperm(len(groups), generator=generator, device=groups.device)]


def cleanest_of_each_class(doubts: Tensor, agree: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Say which labels are among the M least doubtful of their class: a class cannot crowd out another.

    MOIT (Ortego et al., CVPR 2021). M is the median over classes of how many labels `agree`, at least 1; of an even
    number of classes it is the smaller middle one. Classes without labels do not count. Equal doubts keep their order.
    Costs a device synchronization. Shape: (N,), (N,) bool, (N,) int64 -> (N,) bool.
    """
    sizes = labels.bincount(minlength=num_classes)
    count = labels[agree].bincount(minlength=num_classes)[sizes > 0].median().clamp(min=1)
    return lowest_of_each_class(doubts, labels, num_classes, count)
