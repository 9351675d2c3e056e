"""Pretrained networks on the command line: `--features` and `--finetune` of `train` and `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from scanmix.cli.embed import opened
from scanmix.config import UserError
from scanmix.data.sources import kind_of, name_of

if TYPE_CHECKING:
    from scanmix.features import AnyEncoder
    from scanmix.training import RunSettings


class Planned(NamedTuple):
    """What a run is to learn with, before any picture is read."""

    encoder: AnyEncoder | None
    """Whose features are learned from, for `--features`."""
    settings: RunSettings
    side: int | None
    """Side in pixels of the pictures that a pretrained network wants; None where there is none, or it takes any."""


def planned(
    data: str, features: str | None, finetune: str | None, method: str | None, recipe: str | None,
    overrides: Mapping[str, Any], **how: Any,
) -> Planned:  # fmt: skip
    """Open the pretrained network that is asked for, if any, and resolve the settings that go with it.

    Args:
        data: DATA.
        features: of `--features`.
        finetune: of `--finetune`.
        method: of `--method`.
        recipe: of `--recipe`.
        overrides: of `--set`.
        how: seed, device and what else `resolve` takes.

    Raises:
        UserError: the network cannot be opened or does not fit the data, or as of `resolve`.
    """
    from scanmix.training import resolve

    device = str(how.get("device", "auto"))
    if features is not None and finetune is not None:
        raise UserError("--features learns from a network as it is, and --finetune trains it: give one of them")
    if finetune is not None:
        return _finetuned(data, finetune, method, recipe, overrides, how)
    if features is None:
        return Planned(None, resolve(method, name_of(data), recipe, overrides, kind=kind_of(data), **how), None)
    if kind_of(data) == "vector":
        raise UserError(f"{data} holds vectors already; an encoder turns pictures into features: leave --features out")
    encoder = opened(features, device)
    settings = resolve(method, name_of(data), recipe, overrides, features=True, **how)
    return Planned(encoder, settings, encoder.side)


def _finetuned(
    data: str, model: str, method: str | None, recipe: str | None, overrides: Mapping[str, Any], how: Mapping[str, Any]
) -> Planned:
    from scanmix.training.finetune import opened_for, resolve_finetuned, side_of

    if kind_of(data) == "vector":
        raise UserError(f"{data} holds vectors; --finetune trains a network that reads pictures")
    device = str(how.get("device", "auto"))
    record = opened_for(opened(model, device), device)
    return Planned(None, resolve_finetuned(record, method, recipe, overrides, **how), side_of(record))
