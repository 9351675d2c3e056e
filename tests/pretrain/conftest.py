"""Made data: textures of four kinds, each image with its own phase, contrast and noise."""

import math

import pytest
import torch

from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine


@pytest.fixture
def textures() -> TrainingData:
    """160 gray images of 8x8; the class is the pattern: columns, rows, checks or slants."""
    generator = torch.Generator().manual_seed(0)
    count = 160
    kind = torch.arange(count) % 4
    contrast = torch.rand(count, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    shifts = 2 * math.pi * torch.rand(2, count, 1, 1, generator=generator)
    across, down = (1.6 * columns + shifts[0]).sin(), (1.6 * rows + shifts[1]).sin()
    slanted = (1.1 * (rows + columns) + shifts[0]).sin()
    kinds = torch.stack([across, down, across * down, slanted], 1)  # (N, 4, 8, 8)
    images = kinds[torch.arange(count), kind] * (0.5 + 0.5 * contrast).view(-1, 1, 1)
    images = images + 0.4 * torch.randn(images.shape, generator=generator)
    pixels = (127 + 55 * images).clamp(0, 255).to(torch.uint8).unsqueeze(1)
    views = make_views(ViewSettings(contrast_scale=(0.4, 1.0)), pixels, flip=True)
    return TrainingData(pixels, kind, 4, views, Engine().generator)
