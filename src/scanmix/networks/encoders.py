"""The networks that there are, and how one is made for training.

Adding a network takes a file with its settings and its encoder (`networks/contract.py`), and the name of its settings
in `NetworkSettings`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MethodType
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor

from scanmix.config import Table, UserError, in_short, unknown_name
from scanmix.config.fields import kinds_of
from scanmix.data.examples import Kind
from scanmix.distributed.engine import Engine
from scanmix.networks.batch_norm import synchronized
from scanmix.networks.contract import Encoder
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.no_layers import NoLayersSettings
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.networks.resnet import ResNetSettings
from scanmix.networks.timm_network import TimmSettings

__all__ = ["NEWER", "Encoder", "NetworkSettings", "equip", "hashed_network", "settings_class", "stored_network"]

NetworkSettings: TypeAlias = PreActResNetSettings | ResNetSettings | TimmSettings | MlpSettings | NoLayersSettings
"""Every network: a table is told from the others by its `kind`, or where that is missing, by its keys."""


def _by_kind(reads: Kind) -> dict[str, type[NetworkSettings]]:
    """Return the settings of networks that read such examples, by the `kind` of a table; the default has none: ""."""
    return {next(iter(kinds_of(each)), ""): each for each in get_args(NetworkSettings) if each.reads == reads}


NETWORKS: dict[Kind, dict[str, type[NetworkSettings]]] = {kind: _by_kind(kind) for kind in get_args(Kind)}

STEM: Table = {"stem_norm": False}
"""Of the PreAct-ResNet, whose default is another now."""
NEWER: Table = {
    **STEM, "digest": None, "side": None, "head_first": 0, "encoder_rate": 1.0, "feature_length": None,
    "keep_statistics": False,
}  # fmt: skip
"""Settings of networks that came after version 0.1.0, each with the value that networks had before."""


def stored_network(table: Table) -> Table:
    """Return the table of a network as a file holds it, with what files of older versions lack."""
    return STEM | table if "widths" in table and "kind" not in table else table


def hashed_network(network: NetworkSettings) -> Table:
    """Return what a hash holds of a network: all of its settings but newer ones at their old values."""
    return {key: value for key, value in dataclasses.asdict(network).items() if NEWER.get(key, ...) != value}


def settings_class(kind: Kind, table: object) -> type[NetworkSettings]:
    """Return the class of settings that a table of network settings is built into.

    Raises:
        UserError: `table` is no table, or names a kind of network that does not exist for such examples.
    """
    if not isinstance(table, Mapping):
        raise UserError(f"network = {in_short(table)}: a table of settings is expected")
    named, known = str(table.get("kind", "")), NETWORKS[kind]
    if named not in known:
        raise unknown_name(f"network.kind for {kind}s", named, [name for name in known if name])
    return known[named]


def equip(encoder: Encoder, engine: Engine) -> Encoder:
    """Make an encoder compute as the engine is set: its device, precision and batch statistics, compiled or not.

    Raises:
        UserError: batch norms of the encoder cannot be synchronized between processes.
    """
    if engine.world > 1 and engine.batch_norm == "synchronized" and engine.parallel == "rows":
        synchronized(encoder, engine.world)
    if engine.precision == "bf16-mixed":
        # revisit: try `torch.export` on this before using it: the class has another `forward`.
        encoder.forward = MethodType(_mixed_forward, encoder)  # type: ignore[method-assign]
    if engine.compiled:
        encoder.compile()
    return encoder.to(engine.device)


def _mixed_forward(encoder: Any, examples: Tensor) -> Tensor:
    """Run the encoder under bfloat16 autocast. Features come back as float32, so heads and losses stay float32."""
    with torch.autocast(examples.device.type, torch.bfloat16):
        features: Tensor = type(encoder).forward(encoder, examples)
    return features.float()
