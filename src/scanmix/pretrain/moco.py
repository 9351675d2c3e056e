"""MoCo-v2 (Chen et al. 2020; He et al. 2020): contrastive features of unlabeled images, with a queue of negatives.

The first stage of ScanMix for large images (paper section 4.2). Legend: N examples, B batch, D dimensions, K keys.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.losses import info_nce
from scanmix.blocks.neighbors import EXACT_UP_TO
from scanmix.blocks.schedules import cosine
from scanmix.config import STRICT, Batch, Count, Rate, UserError, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.files.tensors import Tensors
from scanmix.networks.encoders import Encoder
from scanmix.networks.inference import predict_all
from scanmix.networks.passes import Passes, whole_batches
from scanmix.pretrain.cache import resumable
from scanmix.pretrain.simclr import make_projector

TITLE = "Pre-training (MoCo)"
"""Name of the stage in progress and messages."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoCo:
    """Hyper-parameters of the pre-training stage; defaults are the paper's for WebVision and Clothing1M."""

    kind: Literal["moco"]
    """Tells a table of these settings from one of SimCLR's."""
    epochs: Annotated[int, Field(ge=0)] = 100
    """Passes over the images (section 4.2); 0 leaves the stage out."""
    batch_size: Batch = 128
    """B."""
    learning_rate: Rate = 0.015
    """Of SGD; it falls to 0 by half a cosine. For batches of 128 (MoCo's recipe for four devices)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Weight = 1e-4
    """Of SGD, on all parameters."""
    contrast_temperature: Rate = 0.2
    """T of InfoNCE (MoCo-v2; 0.07 in the first version)."""
    projection_size: Count = 128
    """D."""
    queue_size: Count = 65_536
    """K: number of earlier keys, which are the negatives."""
    key_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """m: decay of the key network, a running average of the query network."""
    splits: Count = 4
    """Parts of a batch, each with its own batch statistics. Keys are shuffled over them, so that statistics do not give
    away which key belongs to a query (four devices in MoCo's recipe)."""
    images: Count | None = None
    """Number of images to train on, drawn once; 100,000 for Clothing1M (section 4.2). All images are embedded."""
    neighbors_of: Literal["projection", "encoder"] = "projection"
    """Rows that neighbors are mined of: projections of D dimensions (paper), or the encoder's features (code)."""
    exact_neighbors: Annotated[int, Field(ge=0)] = EXACT_UP_TO
    """Most examples for which neighbors are exact; for more they are searched in cells (ours, for time)."""

    def passes(self, count: int) -> Passes:
        """Count the images of the stage on `count` examples: of two views of each, one is learned from."""
        rows = self.epochs * whole_batches(min(count, self.images or count), self.batch_size)
        return Passes(forward_backward=rows, forward_only=rows, contrastive=2 * rows)


class KeyQueue(nn.Module):
    """The last K keys; the oldest are replaced first. It begins with random unit vectors."""

    keys: Tensor
    """(K, D), unit rows."""
    place: Tensor
    """() int64: the row of the oldest key."""

    def __init__(self, size: int, dimensions: int, generator: torch.Generator) -> None:
        """Fill the queue with `size` random keys of so many `dimensions`. Shape: keys (K, D), unit rows."""
        super().__init__()
        drawn = torch.randn(size, dimensions, generator=generator, device=generator.device)
        self.register_buffer("keys", F.normalize(drawn, dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64, device=generator.device))

    def add(self, keys: Tensor) -> None:
        """Replace the oldest keys by these. Shape: (B, D), unit rows, B <= K."""
        rows = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[rows] = keys
        self.place.copy_((self.place + len(keys)) % len(self.keys))


def moco(settings: MoCo, encoder: Encoder, data: TrainingData, engine: Engine, unfinished: Path | None) -> Tensors:
    """Train `encoder` in place; return its weights as `encoder.*` and the rows to mine neighbors of as `embedding`.

    He et al., CVPR 2020, Algorithm 1. `unfinished` is the file for the state of the unfinished stage.
    Shape: embedding (N, D), or (N, features) for `neighbors_of = "encoder"`; unit rows.

    Raises:
        UserError: the queue is longer than there are images, or shorter than a batch.
    """
    chosen = _chosen(settings, data)
    size = min(settings.batch_size, len(chosen))
    if not size <= settings.queue_size <= len(chosen):
        raise UserError(
            f"pretrain.queue_size = {settings.queue_size} must lie between a batch ({size}) and the number of images "
            f"({len(chosen)}): a longer queue holds the image itself among its negatives"
        )
    query = nn.Sequential(encoder, make_projector(encoder, settings.projection_size, engine, "moco"))
    key = copy.deepcopy(query).requires_grad_(requires_grad=False)
    queue = KeyQueue(settings.queue_size, settings.projection_size, data.generator("moco", 0, "queue"))
    optimizer = torch.optim.SGD(
        query.parameters(), lr=0.0, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    parts = max(1, settings.splits // engine.world)

    def run_epoch(epoch: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = cosine(settings.learning_rate, 0.0, epoch / settings.epochs)
        order, draws, mixing = (data.generator("moco", epoch, purpose) for purpose in ("order", "views", "shuffle"))
        meter = Meter()
        query.train()
        key.train()
        for index in batches(chosen, settings.batch_size, order, drop_last=True):
            follow_weights(key, query, settings.key_momentum)
            shuffled = torch.randperm(len(index), generator=mixing, device=mixing.device)
            with torch.no_grad():
                keys = _in_parts(key, index[shuffled], parts, data, engine, draws)[shuffled.argsort()]
            queries = _in_parts(query, index, parts, data, engine, draws)
            loss = info_nce(queries, keys, queue.keys, settings.contrast_temperature)
            meter.add("moco", loss=loss)
            optimizer.zero_grad(set_to_none=True)
            engine.backward(loss, query)
            optimizer.step()
            queue.add(keys)
        note = f"loss {meter.results()['moco/loss']:.3f}"
        engine.tick(TITLE, epoch + 1, settings.epochs, note)

    state = {"query": query, "key": key, "queue": queue, "optimizer": optimizer}
    resumable(engine, unfinished, state, settings.epochs, run_epoch, TITLE)
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    if settings.neighbors_of == "encoder":
        return {**weights, "embedding": F.normalize(predict_all(encoder, data, engine), dim=1)}
    return {**weights, "embedding": predict_all(query, data, engine)}


@torch.no_grad()
def follow_weights(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """Update the weights of `average` in place: momentum * average + (1 - momentum) * network (He et al. 2020, Eq. 2).

    Unlike `ema_update`, it leaves the buffers of batch norm alone: the key network has statistics of its own.
    """
    for averaged, current in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(current, 1 - momentum)


def _chosen(settings: MoCo, data: TrainingData) -> Tensor:
    """Return the indices of the images to train on. Shape: -> (images,) int64, rising."""
    if settings.images is None or settings.images >= len(data):
        return data.everything
    generator = data.generator("moco", 0, "images")
    return torch.randperm(len(data), generator=generator, device=generator.device)[: settings.images].sort().values


def _in_parts(
    network: nn.Module, index: Tensor, parts: int, data: TrainingData, engine: Engine, draws: torch.Generator
) -> Tensor:
    """Embed one view of each image; each part of the batch is normalized by its own batch statistics.

    Shape: indices (B,) -> (B, D), the rows of all processes.
    """
    views = data.views.contrastive(data.images[engine.shard(index)], draws)
    parts = min(parts, len(views) // 2) or 1  # batch norm needs more than one image in train mode
    return engine.all_gather(torch.cat([network(part) for part in views.tensor_split(parts)]))[: len(index)]
