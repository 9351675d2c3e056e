"""Which encoder reads which kind of example, and how it is made. Every encoder has `num_features`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MethodType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from scanmix.config import UserError, in_short, unknown_name
from scanmix.data.examples import Kind
from scanmix.distributed.engine import Engine
from scanmix.networks.batch_norm import synchronized
from scanmix.networks.mlp import Mlp, MlpSettings
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings
from scanmix.networks.resnet import ResNet, ResNetSettings
from scanmix.networks.timm_network import TimmNetwork, TimmSettings, begin_with

Encoder: TypeAlias = PreActResNet | ResNet | TimmNetwork | Mlp
NetworkSettings: TypeAlias = PreActResNetSettings | ResNetSettings | TimmSettings | MlpSettings
"""Told apart by their `kind`, which neither PreAct-ResNet nor the perceptron has, and those by their keys."""

NETWORKS: dict[Kind, dict[str, type[NetworkSettings]]] = {
    "image": {"": PreActResNetSettings, "resnet": ResNetSettings, "timm": TimmSettings},
    "vector": {"": MlpSettings},
}
"""What reads which examples, by `kind`; the first where a table names none."""


def settings_class(kind: Kind, table: object) -> type[NetworkSettings]:
    """Return what a table of network settings is built into.

    Raises:
        UserError: it is no table, or names no kind of network that reads such examples.
    """
    if not isinstance(table, Mapping):
        raise UserError(f"network = {in_short(table)}: a table of settings is expected")
    named, known = str(table.get("kind", "")), NETWORKS[kind]
    if named not in known:
        raise unknown_name(f"network.kind for {kind}s", named, [name for name in known if name])
    return known[named]


def build_encoder(settings: NetworkSettings, channels: int) -> Encoder:
    """Return an encoder of images with so many channels, or of vectors with so many features; its weights are fresh."""
    if isinstance(settings, MlpSettings):
        return Mlp(settings, channels)
    if isinstance(settings, ResNetSettings):
        return ResNet(settings, channels)
    if isinstance(settings, TimmSettings):
        return TimmNetwork(settings, channels)
    return PreActResNet(settings, channels)


def untrained(settings: NetworkSettings) -> NetworkSettings:
    """Return settings of the same network that asks for no weights, where others are to be put in anyway."""
    if isinstance(settings, TimmSettings):
        return dataclasses.replace(settings, pretrained=False, weights=None)
    return settings


def first_encoder(settings: NetworkSettings, channels: int) -> Encoder:
    """Return an encoder as training begins with it: with fresh weights, or those that the settings name."""
    encoder = build_encoder(settings, channels)
    if isinstance(settings, TimmSettings) and isinstance(encoder, TimmNetwork):
        begin_with(encoder, settings, channels)
    return encoder


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
