"""How many neighbors should vote: one number for all examples, or one for each.

Legend: N examples, C classes, K neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def votes_so_far(neighbors: Tensor, labels: Tensor, num_classes: int) -> Iterator[Tensor]:
    """Yield the votes of the nearest neighbor, of the two nearest, and so on, in one tensor that is changed in place.

    Memory grows with N x C. Shape: (N, K) nearest first, (N,) int64 -> K times (N, C).
    """
    votes = torch.zeros(len(labels), num_classes, device=labels.device)
    for column in neighbors.unbind(1):
        yield votes.scatter_add_(1, labels[column].unsqueeze(1), torch.ones_like(votes[:, :1]))


def likeliest_number(neighbors: Tensor, labels: Tensor, num_classes: int, tried: Sequence[int]) -> int:
    """Return the number of neighbors, of those tried, whose vote is the given label most often; of equals the first.

    An example has no part in its own vote, so this is cross-validation with one example left out. In a vote of equals
    the class with the smaller number wins. Shape: (N, K), (N,) int64; numbers in 1..K.
    """
    said = {
        count: int((votes.argmax(1) == labels).sum())
        for count, votes in enumerate(votes_so_far(neighbors, labels, num_classes), 1)
        if count in tried
    }
    return max(tried, key=lambda count: said[count])


def least_agreeing(neighbors: Tensor, labels: Tensor, num_classes: int, fewest: int) -> Tensor:
    """Return the least number of neighbors, of `fewest` to K, whose vote is the given label; K where there is none.

    One over it is the reliability of the label, eta of WANN (Di Salvo et al., TMLR 2025): a label that many neighbors
    must be asked for is less likely to be right. In a vote of equals the class with the smaller number wins.
    Shape: (N, K) nearest first, (N,) int64 -> (N,) int64 in `fewest`..K.
    """
    most = neighbors.shape[1]
    found = torch.full_like(labels, most)
    for count, votes in enumerate(votes_so_far(neighbors, labels, num_classes), 1):
        if count >= fewest:
            found = torch.where((votes.argmax(1) == labels) & (found == most), count, found)
    return found
