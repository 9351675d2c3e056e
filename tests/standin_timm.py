"""A stand-in for timm with one tiny network, so that fine-tuning is tested where timm is not installed."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

NAME = "tiny_net"
SIDE, MEAN, STD = 12, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Tiny(nn.Module):
    """Convolution, batch norm, ReLU, mean over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.num_features = 6
        self.pretrained_cfg = {"first_conv": "stem", "license": "mit"}
        self.feature_info = [{"module": "norm"}]

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.stem(images)).relu()
        return maps.mean((2, 3))


def create_model(name: str, *, pretrained: bool, num_classes: int, in_chans: int = 3) -> nn.Module:
    assert name.partition(".")[0] == NAME and num_classes == 0
    if pretrained:
        raise OSError("there is no network here")
    return Tiny(in_chans)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it in the place of timm."""
    module: Any = ModuleType("timm")
    module.__spec__ = ModuleSpec("timm", None)
    module.list_models = lambda: [NAME]
    module.create_model = create_model
    module.data = SimpleNamespace(
        resolve_model_data_config=lambda network: {
            "input_size": (3, SIDE, SIDE), "mean": MEAN, "std": STD, "crop_pct": 0.875, "interpolation": "bicubic",
        }
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", module)


def write_weights(path: Path, seed: int = 0) -> Path:
    """Write random weights of the network, with a classifier that is to be left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = Tiny(3).state_dict() | {"classifier.weight": torch.randn(9, 6)}
    state["norm.running_mean"] = torch.randn(6, generator=torch.Generator().manual_seed(seed)) / 10
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path
