"""Made data: 12 images of noise, 3 classes."""

import pytest
import torch

from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine


@pytest.fixture
def data() -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(3, (12,), generator=generator)
    views = make_views(ViewSettings(), images, flip=True)
    return TrainingData(images, labels, 3, views, Engine().generator)
