"""SimCLR (Chen et al. 2020): contrastive features of unlabeled images.

The first stage of ScanMix (paper section 4.2). Legend: N examples, B batch, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.blocks.losses import nt_xent, nt_xent_one_way
from scanmix.blocks.neighbors import EXACT_UP_TO
from scanmix.blocks.schedules import cosine
from scanmix.config import STRICT
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.files.tensors import Tensors
from scanmix.networks.encoders import Encoder
from scanmix.networks.inference import predict_all
from scanmix.networks.passes import Passes, whole_batches
from scanmix.pretrain.cache import resumable

TITLE = "Pre-training (SimCLR)"
"""Name of the stage in progress and messages."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimCLR:
    """Hyper-parameters of the pre-training stage; defaults are the paper's for CIFAR."""

    epochs: Annotated[int, Field(ge=0)] = 500
    """Passes over the images (section 4.2); 0 leaves the stage out, and neighbors are those of the eval views."""
    batch_size: Annotated[int, Field(ge=2)] = 512
    """B; a forward pass holds 2B views."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.4
    """Of SGD; it falls by half a cosine to a thousandth (0.1^3: the code's reading of the paper's "decay rate 0.1")."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of SGD, on all parameters."""
    contrast_temperature: Annotated[float, Field(gt=0)] = 0.1
    """T of NT-Xent; 0.1 for CIFAR, 0.07 for Red Mini-ImageNet."""
    projection_size: Annotated[int, Field(ge=1)] = 128
    """Dimensions of the embedding, whose neighbors are mined (section 4.2)."""
    exact_neighbors: Annotated[int, Field(ge=0)] = EXACT_UP_TO
    """Most examples for which neighbors are exact; for more they are searched in cells (ours, for time)."""
    symmetric: bool = False
    """With true both views are anchors, as in SimCLR; else the first alone, as in ScanMix's code."""

    def passes(self, count: int) -> Passes:
        """Count the images of the stage on `count` examples: it learns from both views of each."""
        views = 2 * self.epochs * whole_batches(count, self.batch_size)
        return Passes(forward_backward=views, contrastive=views)


class Projector(nn.Module):
    """A two-layer perceptron whose outputs are unit vectors. Shape: (B, D) -> (B, projection_size)."""

    def __init__(self, num_features: int, projection_size: int) -> None:
        """Stack a linear layer of D outputs, ReLU and a linear layer of `projection_size` outputs."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, projection_size)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return unit embeddings. Shape: (B, D) -> (B, projection_size)."""
        return F.normalize(self.layers(features), dim=1)


def make_projector(encoder: Encoder, projection_size: int, engine: Engine, stage: str) -> Projector:
    """Return a fresh projector for an encoder; its weights depend on the engine's seed and on `stage` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(engine.generator(stage, 0, "projector").initial_seed())
        return Projector(encoder.num_features, projection_size).to(engine.device)


def simclr(settings: SimCLR, encoder: Encoder, data: TrainingData, engine: Engine, unfinished: Path | None) -> Tensors:
    """Train `encoder` in place; return its weights as `encoder.*` and the projections of all images as `embedding`.

    Chen et al., ICML 2020, Algorithm 1. `unfinished` is the file for the state of the unfinished stage.
    Shape: embedding (N, projection_size), unit rows.
    """
    network = nn.Sequential(encoder, make_projector(encoder, settings.projection_size, engine, "simclr"))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    loss_of = nt_xent if settings.symmetric else nt_xent_one_way

    def run_epoch(epoch: int) -> None:
        done = epoch / settings.epochs
        for group in optimizer.param_groups:
            group["lr"] = cosine(settings.learning_rate, settings.learning_rate * 1e-3, done)
        order = data.generator("simclr", epoch, "order")
        draws = data.generator("simclr", epoch, "views")
        meter = Meter()
        network.train()
        for index in map(engine.shard, batches(data.everything, settings.batch_size, order, drop_last=True)):
            images = data.images[index]
            views = torch.cat([data.views.contrastive(images, draws), data.views.contrastive(images, draws)])
            first, second = network(views).chunk(2)
            # The negatives are those of all processes.
            loss = loss_of(engine.all_gather(first), engine.all_gather(second), settings.contrast_temperature)
            meter.add("simclr", loss=loss)
            optimizer.zero_grad(set_to_none=True)
            engine.backward(loss, network)
            optimizer.step()
        note = f"loss {meter.results()['simclr/loss']:.3f}"
        engine.tick(TITLE, epoch + 1, settings.epochs, note)

    resumable(engine, unfinished, {"network": network, "optimizer": optimizer}, settings.epochs, run_epoch, TITLE)
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return {**weights, "embedding": predict_all(network, data, engine)}
