"""A classifier that holds the training rows: a row of features gets what its nearest training rows vote for.

Legend: N training rows, B batch, C classes, D features, E numbers of a row, M candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT, Count

CHUNK = 65_536
"""Most training rows that a batch is compared with at once: memory grows with B x CHUNK."""
SPARE = 8
"""Candidates beyond the most that vote, so that of equally near rows the first ones are among them."""
ALIKE = 1e-5
"""Cosine similarities that are rounded to the same multiple of this are equal; rounding errors are far below it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VoteShape:
    """What is stored beside the weights, so that an empty classifier can be made for them."""

    rows: Count
    """N."""
    most: Count
    """Most training rows that vote for one row."""
    directions: Count | None = None
    """E, where features are compared along so many directions; None where they are compared as they are."""


class NeighborVote(nn.Module):
    """The nearest training row says how many rows vote, each with its weight. Shape: (B, D) -> logits (B, C).

    Softmax of the logits gives the shares of the votes after one more neighbor, whose vote is split evenly: a class
    without votes is improbable, not impossible. The nearest rows are those of the highest cosine similarity; of equally
    near ones the smaller position comes first. Memory grows with N x E, 2 bytes for each number. E is D, unless there
    are directions along which features are compared.
    """

    rows: Tensor
    labels: Tensor
    weights: Tensor
    reach: Tensor
    center: Tensor | None
    directions: Tensor | None

    def __init__(
        self, rows: Tensor, labels: Tensor, weights: Tensor, reach: Tensor, *, num_classes: int, most: int,
        center: Tensor | None = None, directions: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Hold the tensors themselves, no copies: who changes them changes the classifier.

        Args:
            rows: (N, E), of length 1; half precision is enough.
            labels: (N,) int64 in 0..C-1, what each row votes for.
            weights: (N,) above 0, how much its vote counts.
            reach: (N,) int64 in 1..most, how many vote for a row that this one is nearest to.
            num_classes: C.
            most: the largest `reach` that there may be, at most N.
            center: (D,), what is taken off features first; only with directions.
            directions: (D, E), on which they are then projected; by default they are compared as they are.
        """
        super().__init__()
        self.count, self.num_classes, self.most = len(rows), num_classes, most
        held = {"rows": rows, "labels": labels, "weights": weights, "reach": reach}
        for name, tensor in {**held, "center": center, "directions": directions}.items():
            self.register_buffer(name, tensor)

    @property
    def shape(self) -> VoteShape:
        """What `empty_vote` makes a classifier of this shape from."""
        directions = None if self.directions is None else self.directions.shape[1]
        return VoteShape(rows=self.count, most=self.most, directions=directions)

    def forward(self, features: Tensor) -> Tensor:
        """Shape: (B, D) -> logits (B, C). It reads nothing back from the device, and can be traced for any B."""
        places = features.float()
        if self.center is not None and self.directions is not None:
            places = (places - self.center) @ self.directions
        similarity, near = self._candidates(F.normalize(places, dim=1))
        similarity = (similarity / ALIKE).round()
        one, other = similarity.unsqueeze(2), similarity.unsqueeze(1)
        first = (other > one) | ((other == one) & (near.unsqueeze(1) < near.unsqueeze(2)))
        rank = first.sum(2)  # (B, M): how many candidates come before each; a sort that keeps the order of equal ones
        nearest = near.gather(1, rank.argmin(1, keepdim=True))
        reach = self.reach[nearest]
        counts = torch.where(rank < reach, self.weights[near], 0.0)
        votes = torch.zeros_like(features[:, :1], dtype=counts.dtype).repeat(1, self.num_classes)
        votes = votes.scatter_add(1, self.labels[near], counts)
        shares = votes / votes.sum(1, keepdim=True)
        return ((reach * shares + 1 / self.num_classes) / (reach + 1)).log()

    def _candidates(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Return similarity and position of the nearest rows, and some more, in any order.

        Shape: (B, D) -> (B, M), (B, M) int64.
        """
        wanted = min(self.most + SPARE, self.count)
        values, places = [], []
        for first in range(0, self.count, CHUNK):
            part = self.rows[first : first + CHUNK].to(unit)
            found = (unit @ part.T).topk(min(wanted, CHUNK, self.count - first), 1)
            values.append(found.values)
            places.append(found.indices + first)
        similarity, near = torch.cat(values, 1), torch.cat(places, 1)
        if len(values) > 1:
            best = similarity.topk(wanted, 1)
            similarity, near = best.values, near.gather(1, best.indices)
        return similarity, near


def empty_vote(shape: VoteShape, num_features: int, num_classes: int) -> NeighborVote:
    """Return a classifier whose tensors are still to be filled: (N, E), three of (N,), and with directions two more.

    Raises:
        ValueError: more rows are to vote than there are.
    """
    if shape.most > shape.rows:
        raise ValueError(f"{shape.most} of {shape.rows} rows cannot vote")
    whole = torch.empty(shape.rows, dtype=torch.int64)
    rows = torch.empty(shape.rows, shape.directions or num_features, dtype=torch.float16)
    weights = torch.empty(shape.rows)
    along = {} if shape.directions is None else empty_directions(num_features, shape.directions)
    return NeighborVote(rows, whole, weights, whole.clone(), num_classes=num_classes, most=shape.most, **along)


def empty_directions(num_features: int, count: int) -> dict[str, Tensor]:
    """Return the center (D,) and the directions (D, E) of a classifier, all 0."""
    return {"center": torch.zeros(num_features), "directions": torch.zeros(num_features, count)}
