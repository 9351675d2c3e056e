"""Nearest neighbors in feature space: exact, in chunks, on any device.

Legend: N examples, D features, K neighbors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.config import UserError

CHUNK = 512
"""Rows compared at once: memory is CHUNK x N, never N x N."""


def nearest_neighbors(features: Tensor, k: int) -> Tensor:
    """Return the k nearest others of each example, nearest first, in Euclidean distance of L2-normalized rows.

    On the unit sphere that is the order of falling inner product (ScanMix section 4.2, K = 20). An example
    is never its own neighbor, and duplicates count as neighbors. Shape: (N, D) -> (N, K) int64.

    Raises:
        UserError: when there are not more than k examples.
    """
    count = len(features)
    if not 1 <= k < count:
        raise UserError(f"{k} nearest neighbors of {count} examples were asked for; ask for 1 to {count - 1}")
    unit = F.normalize(features.float(), dim=1)
    found = torch.empty(count, k, dtype=torch.int64, device=features.device)
    for start in range(0, count, CHUNK):
        rows = unit[start : start + CHUNK]
        similarity = rows @ unit.T
        own = torch.arange(start, start + len(rows), device=features.device)
        similarity[torch.arange(len(rows), device=features.device), own] = float("-inf")
        found[start : start + len(rows)] = similarity.topk(k, 1).indices
    return found


def agreeing(candidates: Tensor, labels: Tensor) -> Tensor:
    """E-step (Algorithm 1): q(z_ji) = 1 where neighbor j has the label of i. Shape: (N, K), (N,) -> (N, K) bool."""
    return labels[candidates] == labels.unsqueeze(1)


def draw_neighbor(candidates: Tensor, allowed: Tensor, generator: Generator) -> Tensor:
    """Draw one allowed candidate for each example, each as likely; any candidate where none is allowed.

    Shape: (N, K), (N, K) bool -> (N,) int64.
    """
    allowed = allowed | ~allowed.any(1, keepdim=True)
    scores = torch.rand(candidates.shape, generator=generator, device=generator.device)
    chosen = scores.masked_fill(~allowed, -1.0).argmax(1, keepdim=True)
    return candidates.gather(1, chosen).squeeze(1)


def neighbor_vote(neighbors: Tensor, shares: Tensor) -> Tensor:
    """Mean over the neighbors of what each holds, such as one-hot labels. Shape: (N, K), (N, C) -> (N, C)."""
    total = torch.zeros_like(shares)
    for column in neighbors.unbind(1):
        total += shares[column]
    return total / neighbors.shape[1]


def neighbor_similarity(features: Tensor, neighbors: Tensor) -> Tensor:
    """Mean cosine between each example and its neighbors. Shape: (N, D), (N, K) -> (N,) in -1..1."""
    unit = F.normalize(features.float(), dim=1)
    return torch.stack([(unit * unit[column]).sum(1) for column in neighbors.unbind(1)]).mean(0)


def voted_labels(candidates: Tensor, labels: Tensor, num_classes: int, rounds: int) -> Tensor:
    """Return the labels after `rounds` of averaging over candidates: the class with most votes above its share.

    One round asks the candidates, two their candidates as well, and so on: label propagation on the graph of
    neighbors. Wrong labels that are spread over the classes cancel out; no rounds leave every label as it is.
    Shape: (N, K), (N,) -> (N,).
    """
    votes = F.one_hot(labels, num_classes).float()
    for _ in range(rounds):
        votes = neighbor_vote(candidates, votes)
    return (votes - votes.mean(0)).argmax(1)
