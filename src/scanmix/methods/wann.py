"""WANN, weighted adaptive nearest neighbors (Di Salvo, Doerrich, Rieger and Ledig, TMLR 2025, arXiv 2408.14358).

The label of an example is as reliable as few neighbors must be asked until their vote says it. Reliable labels count
more, and the example that is nearest to a query says how many vote. Legend: N examples, C classes, D features.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from scanmix.blocks.adaptive_neighbors import least_agreeing
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import STRICT, About, Count
from scanmix.data.batches import TrainingData
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import same_every_epoch
from scanmix.methods.steps.frozen import Voters, frozen_features, no_gradients, set_votes, vote_of_neighbors, voters
from scanmix.networks.peer import Heads


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WANN:
    """A label that no number of neighbors says counts as one that `most` of them say; the paper leaves this open."""

    State: ClassVar[type[Voters]] = Voters
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    epochs: ClassVar[int] = 1
    about: ClassVar[About] = About(
        "a vote of neighbors in frozen features, each weighted by how soon its own neighbors confirm its label",
        "As `neighbors`; ahead of it where people or look-alikes make the mistakes, behind where chance does.\n"
        "The model holds a vector of each training example.",
        "Di Salvo et al., TMLR 2025", "all, weighted by their reliability", forward_backward=0.0, forward_only=1.0,
        weak=0.0, rows=0, remembers=True,
    )  # fmt: skip
    start = voters
    predictor = vote_of_neighbors
    passes = same_every_epoch
    largest_batch = no_gradients

    fewest: Count = 11  # k_min
    most: Count = 51  # k_max

    def epoch(self, state: Voters, data: TrainingData, epoch: int) -> dict[str, float]:
        """Find the reliability of each label; one that is known to be right is as reliable as can be."""
        (peer,) = state.peers
        meter = Meter()
        with meter.timed("learn"):
            features = frozen_features(peer, data)
            most = min(self.most, len(data) - 1)
            fewest = min(self.fewest, most)
            neighbors = nearest_neighbors(features, most)
            reach = least_agreeing(neighbors, data.labels, data.num_classes, fewest)
            if data.trusted is not None:
                reach = torch.where(data.trusted, fewest, reach)
            set_votes(state, features, reach, 1 / reach)
        return meter.results() | {"learn/neighbors": float(state.reach.float().mean())}
