"""WANN, weighted adaptive nearest neighbors (Di Salvo, Doerrich, Rieger and Ledig, TMLR 2025, arXiv 2408.14358).

The label of an example is as reliable as few neighbors must be asked until their vote says it. Reliable labels count
more, and the example that is nearest to a query says how many vote. Filtered linear discriminant analysis (FLDA, its
section on smaller embeddings) finds directions by the labels that some number of neighbors says, and all of that is
done again along these. Legend: N examples, C classes, D features, E directions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.adaptive_neighbors import least_agreeing
from scanmix.blocks.discriminant import discriminants
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import STRICT, About, Count, Share
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import same_every_epoch
from scanmix.methods.steps.frozen import (
    Voters,
    frozen_features,
    no_gradients,
    set_directions,
    set_votes,
    vote_of_neighbors,
    voters,
)
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Heads


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WANN:
    """A label that no number of neighbors says counts as one that `most` of them say; the paper leaves this open.

    FLDA takes the labels below `most` alone. As published it wants many more of them than there are features: with
    1,000 vectors of 512 and 768 it loses 1 to 50 points of test accuracy. So it is off by default, as in the authors'
    code. With a shrinkage of 0.9 it gains up to 6 points there or loses half a point, and stores C - 1 numbers of each
    example.
    """

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
        weak=0.0, rows=0, searches=1, remembers=True, group="frozen features", measured=True,
    )  # fmt: skip
    predictor = vote_of_neighbors
    passes = same_every_epoch
    largest_batch = no_gradients

    fewest: Count = 11  # k_min
    most: Count = 51  # k_max
    discriminant: Share | None = None  # shrinkage of FLDA: 0 as published, 0.9 for few labels (ours); None: no FLDA

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Voters:
        """Return the network as it begins, and rows that all count alike."""
        return voters(self, data, network, engine, None if self.discriminant is None else data.num_classes - 1)

    def epoch(self, state: Voters, data: TrainingData, epoch: int) -> dict[str, float]:
        """Find the reliability of each label; one that is known to be right is as reliable as can be."""
        (peer,) = state.peers
        meter = Meter()
        with meter.timed("learn"):
            features = frozen_features(peer, data)
            reach = self._reach(features, data)
            if self.discriminant is not None:
                told = reach < min(self.most, len(data) - 1)
                told |= data.labels[told].bincount(minlength=data.num_classes)[data.labels] == 0  # no class is left out
                found = discriminants(features[told], data.labels[told], data.num_classes, self.discriminant)
                features = set_directions(state, found, features)
                reach = self._reach(features, data)
            set_votes(state, features, reach, 1 / reach)
        return meter.results() | {"learn/neighbors": float(state.reach.float().mean())}

    def _reach(self, features: Tensor, data: TrainingData) -> Tensor:
        """Return how many neighbors must be asked for each label. Shape: (N, D) -> (N,) int64."""
        most = min(self.most, len(data) - 1)
        fewest = min(self.fewest, most)
        reach = least_agreeing(nearest_neighbors(features, most), data.labels, data.num_classes, fewest)
        return reach if data.trusted is None else torch.where(data.trusted, fewest, reach)
