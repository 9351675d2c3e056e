"""SCAN (Van Gansbeke et al., ECCV 2020) as in the paper's Table 6: SimCLR, neighbors and clustering, without labels.

Accuracy is measured after the best one-to-one matching of clusters with true classes, which no other method gets;
tables say so. The given labels only name the clusters, so that a prediction is a class.
Legend: N examples, K neighbors, C classes.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, About, Count
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.contract import largest_pretraining_batch, pretraining_passes, sum_of_peers
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Networks, make_peer
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, load_into, name_clusters, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scan:
    """All training happens in `start`; the loop has one epoch, which names the clusters."""

    State: ClassVar[type[Networks]] = Networks
    self_supervised: ClassVar[bool] = True
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "clusters of images and their neighbors",
        "Clusters without labels: SimCLR, then neighbors that should fall into the same cluster. All training\n"
        "happens before the first epoch. The given labels only name the clusters, so that a prediction is a\n"
        "class. Its accuracy is measured after the best matching of clusters with *true* classes, which no\n"
        "other method gets; every table says so. Use it to see how far images alone go.",
        "Van Gansbeke et al., ECCV 2020", "none, only to name the clusters", rows=0, cost_in_words="pre-training alone",
        group="scanmix", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    epochs: ClassVar[int] = 1

    pretrain: Pretraining = SimCLR()  # first stage: features
    clustering: Clustering = Clustering()  # second stage: clusters of neighbors
    num_neighbors: Count = 20  # K (section 4.2)
    include_self: bool = True  # the example counts among its neighbors (published code)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Networks:
        """Run the self-supervised stages, or take them from the cache."""
        found = pretrain(self.pretrain, self.clustering, self.num_neighbors, self.include_self, data, network, engine)
        peer = make_peer(network, data, engine, "a")
        load_into([peer], found)
        return Networks([peer])

    def epoch(self, state: Networks, data: TrainingData, epoch: int) -> dict[str, float]:
        """Reorder the rows of the head to the classes that the given labels name."""
        (peer,) = state.peers
        name_clusters(peer, data)
        return {}

    def passes(self, count: int, clean: float) -> Stages:
        """Count the self-supervised stages, then one forward pass that names the clusters."""
        stages = pretraining_passes(self.pretrain, self.clustering, count)
        return stages | {"training": Passes(forward_only=count)}

    def largest_batch(self, count: int) -> int:
        """Return the larger of the batches of both stages."""
        return largest_pretraining_batch(self.pretrain, self.clustering, count)
