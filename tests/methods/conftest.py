"""64 tiny made images with labels a third of which are wrong, tiny networks, and `--update-golden`.

Golden curves are written anew by `python -m pytest tests/methods --update-golden`.
"""

from collections.abc import Callable

import pytest
import torch

from scanmix.config import build
from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.methods import METHODS, Method
from scanmix.methods.c2d import C2D
from scanmix.methods.co_teaching import CoTeaching
from scanmix.methods.co_teaching_plus import CoTeachingPlus
from scanmix.methods.d2l import D2L
from scanmix.methods.decoupling import Decoupling
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.exact_em import ExactEM
from scanmix.methods.joint import Joint
from scanmix.methods.loss_correction import Backward, Forward
from scanmix.methods.m_correction import MCorrection, MCorrectionSH
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.pencil import Pencil
from scanmix.methods.pes import PES
from scanmix.methods.pes_semi import PESSemi
from scanmix.methods.scan import Scan
from scanmix.methods.scan_dividemix import ScanDivideMix
from scanmix.methods.scanmix import ScanMix
from scanmix.methods.ssr import SSR, SSRPlus
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR

FIRST = SimCLR(epochs=2, batch_size=32, learning_rate=0.1, contrast_temperature=0.2, projection_size=8, symmetric=False)
SECOND = Clustering(epochs=2, batch_size=32, learning_rate=1e-3, entropy_weight=5.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden loss curves anew")


@pytest.fixture
def network() -> PreActResNetSettings:
    return PreActResNetSettings(widths=(8, 16), blocks=(1, 1))


@pytest.fixture
def make_data() -> Callable[[int], TrainingData]:
    """Return a maker of 64 images of 8x8 in 4 classes (which quarter is bright) by seed of the draws."""

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
        return TrainingData(pixels, labels, 4, views, Engine(seed=seed).generator)

    return make


@pytest.fixture
def data(make_data: Callable[[int], TrainingData]) -> TrainingData:
    return make_data(0)


def tiny_dividemix(epochs: int, warmup: int = 1) -> DivideMix:
    return DivideMix(
        epochs=epochs, warmup=warmup, batch_size=16, minimum_steps=0, learning_rate=0.05, warmup_rate=0.05,
        lr_drop="50%", momentum=0.9, weight_decay=5e-4, clean_threshold=0.5, sharpen_temperature=0.5,
        mixup_alpha=4.0, unlabeled_weight=5.0, unlabeled_ramp=4.0, prior_weight=1.0, loss_memory=2,
    )  # fmt: skip


def tiny_scanmix(epochs: int, warmup: int = 1) -> ScanMix:
    return ScanMix(
        epochs=epochs, warmup=warmup, pretrain=FIRST, clustering=SECOND, num_neighbors=5, batch_size=16,
        minimum_steps=0, learning_rate=0.05, warmup_rate=0.05, lr_drop="50%", clean_threshold=0.5,
        sharpen_temperature=0.5, mixup_alpha=4.0, unlabeled_weight=5.0, unlabeled_ramp=4.0, prior_weight=1.0,
        entropy_weight=5.0, cluster_batch_size=32, cluster_rate=1e-3, severe_cluster_rate=1e-2, severe_noise=0.6,
        loss_memory=2, momentum=0.9, weight_decay=5e-4,
    )  # fmt: skip


def tiny_methods(epochs: int, warmup: int = 1) -> dict[str, Method]:
    """Every method, small enough for seconds: most need no more than the plain settings."""
    special: dict[str, Method] = {
        "dividemix": tiny_dividemix(epochs, warmup),
        "scan": Scan(pretrain=FIRST, clustering=SECOND, num_neighbors=5),
        "scan_dividemix": ScanDivideMix(
            pretrain=FIRST, clustering=SECOND, num_neighbors=5, dividemix=tiny_dividemix(epochs, warmup)
        ),
        "scanmix": tiny_scanmix(epochs, warmup),
        "forward": Forward(epochs=epochs, batch_size=32, learning_rate=0.05, estimation=1),
        "backward": Backward(epochs=epochs, batch_size=32, learning_rate=0.05, estimation=1),
        "decoupling": Decoupling(epochs=epochs, batch_size=32, learning_rate=0.05, warmup=1),
        "co_teaching": CoTeaching(epochs=epochs, batch_size=32, learning_rate=0.05, gradual=2),
        "co_teaching_plus": CoTeachingPlus(epochs=epochs, batch_size=32, learning_rate=0.05, gradual=2, alike=1),
        "pencil": Pencil(epochs=epochs, batch_size=32, fixed=1, moving=2),
        "joint": Joint(epochs=epochs, batch_size=32, joint=2, begin=0, remembered=1),
        "d2l": D2L(epochs=epochs, batch_size=32, learning_rate=0.05, begin=0, window=1),
        "m_correction": MCorrection(epochs=epochs, batch_size=32, learning_rate=0.05, begin=1),
        "mentormix": MentorMix(epochs=epochs, batch_size=32, learning_rate=0.05, burn_in=1),
        "m_correction_sh": MCorrectionSH(epochs=epochs, batch_size=32, learning_rate=0.05, begin=1),
        "pes": PES(epochs=epochs, batch_size=32, learning_rate=0.05, warmup=1, refit_stage=1, refit_head=1),
        "pes_semi": PESSemi(epochs=epochs, batch_size=32, learning_rate=0.05, warmup=1, refit=1),
        "ssr": SSR(epochs=epochs, batch_size=32, learning_rate=0.05, num_neighbors=5),
        "ssr_plus": SSRPlus(epochs=epochs, batch_size=32, learning_rate=0.05, num_neighbors=5),
        "c2d": C2D(pretrain=FIRST, dividemix=tiny_dividemix(epochs, warmup)),
        "exact_em": ExactEM(epochs=epochs, steps=3, learning_rate=0.5, halvings=10),
    }
    plain = {"epochs": epochs, "batch_size": 32, "learning_rate": 0.05}
    return {name: special.get(name) or build(METHODS[name], plain, where=name) for name in METHODS}


@pytest.fixture
def methods() -> Callable[..., dict[str, Method]]:
    return tiny_methods


@pytest.fixture
def scanmix() -> ScanMix:
    return tiny_scanmix(6)


@pytest.fixture
def dividemix() -> DivideMix:
    return tiny_dividemix(6)
