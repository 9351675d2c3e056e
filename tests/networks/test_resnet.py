"""ResNet: the published sizes, any image size, the formula of a block, and a short ScanMix run."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import scanmix
from scanmix.config import UserError, build
from scanmix.networks.encoders import settings_class
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.networks.resnet import Block, ResNet, ResNetSettings

SMALL = {"kind": "resnet", "widths": [4, 8], "blocks": [1, 1], "stem_kernel": 3, "stem_stride": 1, "stem_pool": False}


def count(network: nn.Module, features: int, classes: int) -> int:
    return sum(weight.numel() for weight in network.parameters()) + (features + 1) * classes


def test_the_published_numbers_of_parameters() -> None:
    fifty = ResNet(ResNetSettings(kind="resnet"), 3)
    assert count(fifty, 2048, 1000) == 25_557_032
    eighteen = ResNet(ResNetSettings(kind="resnet", blocks=(2, 2, 2, 2), bottleneck=False), 3)
    assert count(eighteen, 512, 1000) == 11_689_512
    assert (fifty.num_features, eighteen.num_features) == (2048, 512)


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_images_of_any_size_give_features(size: tuple[int, int]) -> None:
    network = ResNetSettings(kind="resnet", widths=(4, 8), blocks=(1, 2)).build(3)
    assert network(torch.randn(2, 3, *size)).shape == (2, 32)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_a_block_is_its_formula(bottleneck: bool) -> None:
    torch.manual_seed(0)
    block = Block(6, 4, 2, bottleneck=bottleneck).eval()
    x = torch.randn(2, 6, 8, 8)
    y = x
    for place, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
        assert isinstance(conv, nn.Conv2d)
        strides = [1, 2, 1] if bottleneck else [2, 1]
        assert conv.stride == (strides[place], strides[place])
        y = norm(conv(y))
        y = y.clamp(min=0) if place + 1 < len(block.convs) else y
    assert torch.allclose(block(x), F.relu(y + block.shortcut(x)), atol=1e-6)


def test_a_table_names_its_kind_of_network() -> None:
    assert settings_class("image", {}) is PreActResNetSettings
    assert settings_class("image", {"kind": "resnet"}) is ResNetSettings
    assert settings_class("vector", {"hidden": [3]}) is MlpSettings
    with pytest.raises(UserError, match=r"network\.kind for images 'resnt'; did you mean 'resnet'"):
        settings_class("image", {"kind": "resnt"})
    with pytest.raises(UserError, match=r"network\.kind for vectors 'resnet'"):
        settings_class("vector", {"kind": "resnet"})


def test_stages_need_a_width_and_a_depth() -> None:
    with pytest.raises(UserError, match="one number for each stage"):
        build(ResNetSettings, {"kind": "resnet", "blocks": [1]}, "here")


def test_scanmix_trains_saves_and_opens_it(tmp_path: Path) -> None:
    train_set, test_set = scanmix.load("digits", per_class=6, limit_test=20)
    (tmp_path / "bare.toml").touch()
    run = scanmix.train(
        scanmix.add_noise(train_set, "symmetric", rate=0.4, seed=0), test=test_set, method="scanmix",
        out=tmp_path / "run", cache=tmp_path, recipe=str(tmp_path / "bare.toml"), threads=1, progress=False,
        network=SMALL, pretrain={"epochs": 1, "batch_size": 30}, clustering={"epochs": 1, "batch_size": 30},
        epochs=2, warmup=1, batch_size=8, num_neighbors=4, cluster_batch_size=30,
    )  # fmt: skip
    again = scanmix.open_run(tmp_path / "run")
    assert again.settings.network == build(ResNetSettings, SMALL, "here")
    images = train_set.images
    assert torch.equal(torch.as_tensor(again.predict_proba(images)), torch.as_tensor(run.predict_proba(images)))
