"""Which encoder reads which kind of example, and how it is made. Every encoder has `num_features`."""

from __future__ import annotations

from types import MethodType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from scanmix.data.examples import Kind
from scanmix.engine import Engine
from scanmix.networks.batch_norm import synchronized
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


def equip(encoder: Encoder, engine: Engine) -> Encoder:
    """Make an encoder compute as the engine is set: on its device, in its precision, with its batch statistics."""
    if engine.world > 1 and engine.batch_norm == "synchronized" and engine.parallel == "rows":
        synchronized(encoder, engine.world)
    if engine.precision == "bf16-mixed":
        encoder.forward = MethodType(_mixed_forward, encoder)  # type: ignore[method-assign]
    return encoder.to(engine.device)


def _mixed_forward(encoder: Any, examples: Tensor) -> Tensor:
    """Compute in bfloat16 what bears it; features are float32 again, and so are heads and losses."""
    with torch.autocast(examples.device.type, torch.bfloat16):
        features: Tensor = type(encoder).forward(encoder, examples)
    return features.float()
