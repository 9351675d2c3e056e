"""Made images and the two networks that learn from them: nothing here is downloaded.

Legend: N examples, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scanmix.data.batches import TrainingData
from scanmix.data.examples import Examples
from scanmix.data.views import AnyViewSettings, ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.training import resolve

NUM_CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """A network, its views, and the number and shape of the images it learns from."""

    name: str
    count: int
    shape: tuple[int, int, int]
    """C, H, W."""
    network: NetworkSettings
    views: AnyViewSettings


_FASHION = resolve("scanmix", "fashion-mnist")
SMALL = Workload("small network, 28x28x1", 5000, (1, 28, 28), _FASHION.network, _FASHION.views)
"""The network and the views of the Fashion-MNIST recipes."""
LARGE = Workload("PreAct-ResNet-18, 32x32x3", 128, (3, 32, 32), PreActResNetSettings(), ViewSettings())
"""The paper's for CIFAR."""


def made_examples(count: int, shape: tuple[int, int, int], seed: int = 0) -> Examples:
    """Return soft blobs of ten classes under pixel noise, half of the labels drawn at random. Shape: (N, C, H, W)."""
    draws = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    kind = torch.randint(NUM_CLASSES, (count,), generator=draws)
    means = torch.rand(NUM_CLASSES, channels, 4, 4, generator=draws)
    coarse = means[kind] + 0.4 * torch.randn(count, channels, 4, 4, generator=draws)
    images = torch.cat(
        [F.interpolate(part, (height, width), mode="bilinear", align_corners=False) for part in coarse.split(1024)]
    )
    images = images * 200 + 20 + 10 * torch.randn(images.shape, generator=draws)
    anew = torch.rand(count, generator=draws) < 0.5
    return Examples(
        images=images.clamp(0, 255).to(torch.uint8),
        labels=torch.where(anew, torch.randint(NUM_CLASSES, (count,), generator=draws), kind),
        class_names=tuple(f"kind {i}" for i in range(NUM_CLASSES)),
        ids=tuple(f"made/{i}" for i in range(count)),
        name="made",
    )


def made_data(workload: Workload, engine: Engine) -> TrainingData:
    """Return made images of a workload as a method takes them."""
    examples = made_examples(workload.count, workload.shape)
    views = make_views(workload.views, examples.images, flip=True)
    return TrainingData(examples.images, examples.labels, NUM_CLASSES, views, engine.generator)
