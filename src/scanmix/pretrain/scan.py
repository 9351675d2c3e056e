"""SCAN's clustering stage (Van Gansbeke et al. 2020): an image and its neighbor belong to one cluster.

ScanMix's code runs it between SimCLR and warm-up; Algorithm 1 of the paper does not show it.
Legend: N examples, B batch, C clusters, K candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.losses import scan_loss
from scanmix.blocks.neighbors import draw_neighbor
from scanmix.config import STRICT
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.files.tensors import Tensors
from scanmix.networks.passes import Passes, whole_batches
from scanmix.networks.peer import Peer
from scanmix.pretrain.cache import resumable

TITLE = "Clustering (SCAN)"
"""Name of the stage in progress and messages."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clustering:
    """Hyper-parameters of the clustering stage; defaults are the ScanMix code's for CIFAR-10."""

    epochs: Annotated[int, Field(ge=0)] = 50
    """Passes over the images (100 for CIFAR-100); 0 leaves the stage out, as Algorithm 1 does."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """B (1024 for CIFAR-100); it should not be smaller than the number of clusters."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of Adam; constant."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of Adam, as an L2 term."""
    entropy_weight: Annotated[float, Field(ge=0)] = 5.0
    """lambda_e (SCAN's code)."""

    def passes(self, count: int) -> Passes:
        """Count the images of the stage on `count` examples: it learns from each and from one of its neighbors."""
        pairs = 2 * self.epochs * whole_batches(count, self.batch_size)
        return Passes(forward_backward=pairs, strong=pairs)


def cluster(
    settings: Clustering, peer: Peer, candidates: Tensor, data: TrainingData, engine: Engine, unfinished: Path | None
) -> Tensors:
    """Train encoder and clusterer of `peer` in place; return their weights as `encoder.*` and `clusterer.*`.

    In each epoch every image draws one of its candidates. Anchors and neighbors are strong views in separate forward
    passes, so that each has its own batch statistics. The weights after the last epoch are returned; the published
    code chooses an epoch by its loss on test images. Shape: candidates (N, K).

    Args:
        settings: of the stage.
        peer: its classifier stays as it is.
        candidates: indices of the neighbors of each image.
        data: the images; labels are not read.
        engine: where to compute.
        unfinished: file for the state of the unfinished stage, if any.
    """
    parts = torch.nn.ModuleDict({"encoder": peer.encoder, "clusterer": peer.clusterer})
    optimizer = torch.optim.Adam(parts.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    all_allowed = torch.ones_like(candidates, dtype=torch.bool)

    def run_epoch(epoch: int) -> None:
        partner = draw_neighbor(candidates, all_allowed, data.generator("scan", epoch, "neighbors"))
        draws = data.generator("scan", epoch, "views")
        meter = Meter()
        peer.train()
        order = data.generator("scan", epoch, "order")
        for index in map(engine.shard, batches(data.everything, settings.batch_size, order, drop_last=True)):
            views = data.sample_views(data.views.strong, (index, partner[index]), draws)
            anchor, neighbor = (engine.all_gather(peer.clusterer(peer.encoder(view))) for view in views)
            loss, consistency, entropy = scan_loss(anchor, neighbor, settings.entropy_weight)
            meter.add("scan", total=loss, consistency=consistency, entropy=entropy)
            optimizer.zero_grad(set_to_none=True)
            engine.backward(loss, parts)
            optimizer.step()
        note = f"consistency {meter.results()['scan/consistency']:.3f}"
        engine.tick(TITLE, epoch + 1, settings.epochs, note)

    resumable(engine, unfinished, {"parts": parts, "optimizer": optimizer}, settings.epochs, run_epoch, TITLE)
    return dict(parts.state_dict())
