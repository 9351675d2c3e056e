"""Which encoder reads which kind of example, and how it is made. Every encoder has `num_features`."""

from __future__ import annotations

from typing import TypeAlias

from scanmix.data.examples import Kind
from scanmix.networks.mlp import Mlp, MlpSettings
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings

Encoder: TypeAlias = PreActResNet | Mlp
NetworkSettings: TypeAlias = PreActResNetSettings | MlpSettings
"""Told apart by their keys: none takes the other's."""

NETWORKS: dict[Kind, type[NetworkSettings]] = {"image": PreActResNetSettings, "vector": MlpSettings}


def build_encoder(settings: NetworkSettings, channels: int) -> Encoder:
    """Return an encoder of images with so many channels, or of vectors with so many features."""
    if isinstance(settings, MlpSettings):
        return Mlp(settings, channels)
    return PreActResNet(settings, channels)
