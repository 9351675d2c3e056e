"""64 tiny made images with labels a third of which are wrong, tiny networks, and `--update-golden`.

Golden curves are written anew by `python -m pytest tests/methods --update-golden`.
"""

from collections.abc import Callable

import pytest
import torch

from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.methods import METHODS, Method
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.scanmix import ScanMix
from scanmix.networks.preact_resnet import PreActResNetSettings
from tests.tiny import suited, tiny_method


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden loss curves anew")


@pytest.fixture
def network() -> PreActResNetSettings:
    return PreActResNetSettings(widths=(8, 16), blocks=(1, 1), stem_norm=False)


@pytest.fixture
def make_data(request: pytest.FixtureRequest) -> Callable[[int], TrainingData]:
    """Return a maker of 64 images of 8x8 in 4 classes (which quarter is bright) by seed of the draws.

    A test of each method by `name` has trusted labels where the method needs some.
    """
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")

    def make(seed: int) -> TrainingData:
        generator = torch.Generator().manual_seed(0)
        kind = torch.arange(64) % 4
        images = 60 + 60 * torch.rand(64, 1, 8, 8, generator=generator)
        for i, label in enumerate(kind.tolist()):
            row, column = 4 * (label // 2), 4 * (label % 2)
            images[i, :, row : row + 4, column : column + 4] += 100
        wrong = torch.randperm(64, generator=generator)[:21]
        labels = kind.clone()
        labels[wrong] = (labels[wrong] + torch.randint(1, 4, (21,), generator=generator)) % 4
        pixels = images.to(torch.uint8)
        # Fixed statistics: a test may replace the pixels.
        mild = ViewSettings(mean=(0.4,), std=(0.2,), crop_padding=1, strong_operations=1, cutout=2)
        views = make_views(mild, pixels, flip=False)
        made = TrainingData(pixels, labels, 4, views, Engine(seed=seed).generator)
        return suited(name, made) if name in METHODS else made

    return make


@pytest.fixture
def data(make_data: Callable[[int], TrainingData]) -> TrainingData:
    return make_data(0)


def tiny_methods(epochs: int, warmup: int = 1) -> dict[str, Method]:
    """Every method, small enough for seconds."""
    return {name: tiny_method(name, epochs, warmup) for name in METHODS}


@pytest.fixture
def methods() -> Callable[..., dict[str, Method]]:
    return tiny_methods


@pytest.fixture
def scanmix() -> ScanMix:
    found = tiny_method("scanmix", 6)
    assert isinstance(found, ScanMix)
    return found


@pytest.fixture
def dividemix() -> DivideMix:
    found = tiny_method("dividemix", 6)
    assert isinstance(found, DivideMix)
    return found
