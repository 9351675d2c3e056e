"""SCAN (Van Gansbeke et al., ECCV 2020) as in the paper's Table 6: SimCLR, neighbors and clustering, without labels.

Accuracy is measured after the best one-to-one matching of clusters with true classes, which no other method is
allowed; tables say so. The given labels only name the clusters, so that a prediction is a class.
Legend: N examples, K neighbors, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.clusters import match_clusters
from scanmix.config import STRICT
from scanmix.data.batches import TrainingData
from scanmix.engine import Engine
from scanmix.networks.peer import Peer, Predictor, classify, examine, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import load_into, pretrain


@dataclasses.dataclass
class ScanState:
    """One network whose classifier is the clustering head."""

    peers: list[Peer]
    p_clean: Tensor | None = None
    """Always None: SCAN does not look at labels."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scan:
    """All training happens in `start`; the loop has one epoch, which names the clusters."""

    State: ClassVar[type[ScanState]] = ScanState
    label_free: ClassVar[bool] = True
    epochs: ClassVar[int] = 1

    pretrain: SimCLR = SimCLR()
    """First stage: features."""
    clustering: Clustering = Clustering()
    """Second stage: clusters of neighbors."""
    num_neighbors: Annotated[int, Field(ge=1)] = 20
    """K (section 4.2)."""
    include_self: bool = True
    """The example counts among its neighbors (published code)."""

    def start(self, data: TrainingData, network: PreActResNetSettings, engine: Engine) -> ScanState:
        """Run or recall the label-free stages."""
        found = pretrain(
            self.pretrain,
            self.clustering,
            self.num_neighbors,
            include_self=self.include_self,
            data=data,
            network=network,
            engine=engine,
        )
        return ScanState(
            [load_into(make_peer(network, data, engine, "first", momentum=0, weight_decay=0), found)]
        )

    def epoch(self, state: ScanState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Put the rows of the head in the order of the classes that the given labels name."""
        (peer,) = state.peers
        classes = match_clusters(examine(peer, data).prediction, data.labels, data.num_classes)
        reorder(peer.classifier, classes)
        return {}

    def predictor(self, state: ScanState) -> Predictor:
        """Return the network itself."""
        return Predictor([classify(peer) for peer in state.peers])


def reorder(head: nn.Linear, classes: Tensor) -> None:
    """Move row c of a linear head to row `classes[c]`. Shape: (C,) a permutation."""
    with torch.no_grad():
        order = classes.argsort()
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())
