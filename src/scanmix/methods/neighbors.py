"""A vote of the nearest training examples in frozen features: the given labels as they are, no parameters.

The rule is Cover and Hart's (1967). Bahri, Jiang and Gupta (ICML 2020) find it hard to beat for telling wrong labels
where features are good. Legend: N examples, C classes, D features, k neighbors.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from scanmix.blocks.adaptive_neighbors import likeliest_number
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import STRICT, About, Count
from scanmix.data.batches import TrainingData
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import same_every_epoch
from scanmix.methods.steps.frozen import Voters, frozen_features, no_gradients, set_votes, vote_of_neighbors, voters
from scanmix.networks.peer import Heads


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Neighbors:
    """k is chosen by the given labels themselves, each left out of its vote."""

    State: ClassVar[type[Voters]] = Voters
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    epochs: ClassVar[int] = 1
    about: ClassVar[About] = About(
        "a vote of the nearest examples in frozen features, by their given labels: nothing is trained",
        "For vectors of a pretrained network, to compare with: no parameters, and each prediction can be explained by\n"
        "the examples that vote for it. The model holds a vector of each training example.",
        "Cover and Hart, IEEE Transactions on Information Theory 1967", forward_backward=0.0, forward_only=1.0,
        weak=0.0, rows=0, searches=1, remembers=True, group="frozen features", measured=True,
    )  # fmt: skip
    start = voters
    predictor = vote_of_neighbors
    passes = same_every_epoch
    largest_batch = no_gradients

    tried: Annotated[tuple[Count, ...], Field(min_length=1)] = (5, 10, 20, 30, 50, 100)  # numbers k to choose from

    @property
    def most(self) -> int:
        """The largest k."""
        return max(self.tried)

    def epoch(self, state: Voters, data: TrainingData, epoch: int) -> dict[str, float]:
        """Take the features of all eval views, and the k whose votes say most given labels."""
        (peer,) = state.peers
        meter = Meter()
        with meter.timed("learn"):
            features = frozen_features(peer, data)
            tried = sorted({min(count, len(data) - 1) for count in self.tried})
            neighbors = nearest_neighbors(features, tried[-1])
            chosen = likeliest_number(neighbors, data.labels, data.num_classes, tried)
            set_votes(state, features, data.labels.new_full((len(data),), chosen))
        return meter.results() | {"learn/neighbors": float(state.reach[0])}
