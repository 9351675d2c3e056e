"""Which settings make which network, and that a new one needs nothing but its settings."""

from dataclasses import asdict, replace
from typing import ClassVar, Literal, Self, get_args

import pytest
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT, build
from scanmix.data.examples import Kind
from scanmix.networks.contract import Encoder, EncoderSettings
from scanmix.networks.encoders import NETWORKS, NetworkSettings, settings_class
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.no_layers import NoLayersSettings
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.networks.resnet import ResNetSettings
from scanmix.networks.timm_network import TimmSettings


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MadeSettings(EncoderSettings):
    """Settings of a network that no file of the package knows."""

    reads: ClassVar[Kind] = "image"
    kind: Literal["made"]
    width: int = Field(default=4, ge=1)
    start: float | None = None

    def build(self, channels: int) -> Encoder:
        return Made(self, channels)

    def build_first(self, channels: int) -> Encoder:
        encoder = Made(self, channels)
        if self.start is not None:
            nn.init.constant_(encoder.layer.weight, self.start)
        return encoder

    def untrained(self) -> Self:
        return replace(self, start=None)


class Made(Encoder):
    """One linear layer on the mean color. Shape: (B, C, H, W) -> (B, width)."""

    def __init__(self, settings: MadeSettings, channels: int) -> None:
        super().__init__()
        self.num_features = settings.width
        self.layer = nn.Linear(channels, settings.width)

    def forward(self, examples: Tensor) -> Tensor:
        features: Tensor = self.layer(examples.mean((2, 3)))
        return features

    def last_stage(self) -> list[nn.Module]:
        return [self.layer]

    def blocks(self) -> list[nn.Module]:
        return []


def test_every_network_is_found_by_what_it_reads_and_its_kind() -> None:
    assert NETWORKS == {
        "image": {"": PreActResNetSettings, "resnet": ResNetSettings, "timm": TimmSettings},
        "vector": {"": MlpSettings, "none": NoLayersSettings},
    }
    assert sum(map(len, NETWORKS.values())) == len(get_args(NetworkSettings))  # none hides another


def test_a_network_needs_nothing_but_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS["image"], "made", MadeSettings)
    table = {"kind": "made", "width": 3, "start": 0.5}
    settings = build(settings_class("image", table), table, where="recipe")
    encoder = settings.build_first(2)
    assert isinstance(encoder, Made)
    assert encoder(torch.ones(5, 2, 4, 4)).shape == (5, 3)
    assert (encoder.layer.weight == 0.5).all()
    assert asdict(settings.untrained()) == {"kind": "made", "width": 3, "start": None}
