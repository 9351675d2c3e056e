"""Fine-tuning: a run on pictures whose network begins with pretrained weights of timm instead of random ones.

The encoder rests for the first epochs, in which heads are trained alone; then it learns more slowly than they do.
`recipes/finetune` holds the settings. Legend: C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from scanmix.config import Table, UserError, merge
from scanmix.data.examples import Examples
from scanmix.data.views import ViewSettings
from scanmix.distributed.process_group import Processes
from scanmix.features import AnyEncoder, EncoderRecord, open_encoder, record_of
from scanmix.training.settings import RunSettings, nested, resolve

RECIPES = "finetune"
"""Folder of the recipes for such runs, whatever their data."""
METHOD = "cross_entropy"
"""Where none is asked for: on 1,000 pictures with people's labels it was ahead of SSR, for half the time
(`results/finetune.md`). Few epochs at low rates memorize little."""


def opened_for(source: str | Callable[[Tensor], Any] | AnyEncoder, device: str) -> EncoderRecord:
    """Open the network that a run is to begin with, and write down which it is.

    Shape: a function takes (B, C, H, W) uint8 and returns (B, D).

    Raises:
        UserError: it cannot be opened, or cannot be trained: it is none of timm.
    """
    record = record_of(open_encoder(source, device=device))
    if len(record.parts) > 1 or not record.parts[0].kind.startswith("timm:"):
        raise UserError(
            f"{record.name} cannot be trained on: only a single network of timm can, timm:NAME or timm:NAME@FILE. "
            "Learn from its features instead (--features)"
        )
    return record


def resolve_finetuned(
    record: EncoderRecord, method: str | None, recipe: str | None = None, overrides: Mapping[str, Any] | None = None,
    *, seed: int = 0, device: str = "auto", threads: int | None = None, processes: Processes | None = None,
) -> RunSettings:  # fmt: skip
    """Resolve settings as `resolve` does, for a network that begins with the weights of `record`.

    What the weights ask for (size and normalization of pictures) is laid on the recipe, and overrides on that.

    Args:
        record: what `opened_for` wrote down.
        method: a name in `METHODS`; when neither it nor a recipe is given, `METHOD`.
        recipe: name or path; when not given, `finetune/any/<method>`, else that of cross-entropy.
        overrides: as for `resolve`, as are all others.
        seed: decides every draw of the training.
        device: where to train.
        threads: of PyTorch.
        processes: how many there are.

    Raises:
        UserError: as `resolve`.
    """
    wanted = merge(_asked_by(record), nested(overrides or {}))
    method = METHOD if method is None and recipe is None else method
    found = resolve(
        method, RECIPES, recipe, wanted, seed=seed, device=device, threads=threads, processes=processes
    )  # fmt: skip
    return dataclasses.replace(found, finetuned=record)


def side_of(record: EncoderRecord) -> int:
    """Return the side in pixels of the pictures that the network has learned from."""
    return int(max((record.parts[0].preparation or {})["size"]))


def suited_to(settings: RunSettings, examples: Examples) -> RunSettings:
    """Return the settings of a fine-tuned run for gray pictures, whose one channel has the mean normalization of three.

    All others are returned as they are.
    """
    views = settings.views
    if settings.finetuned is None or examples.channels != 1 or not isinstance(views, ViewSettings):
        return settings
    mean, std = (None if given is None else (sum(given) / len(given),) for given in (views.mean, views.std))
    return dataclasses.replace(settings, views=dataclasses.replace(views, mean=mean, std=std))


def _asked_by(record: EncoderRecord) -> Table:
    """Return the sections `network` and `views` that the weights ask for."""
    part = record.parts[0]
    name, _, file = part.name.removeprefix("timm:").partition("@")
    place = {"weights": file, "pretrained": False} if file else {"pretrained": True}
    prepared = part.preparation or {}
    network = {"kind": "timm", "name": name, "digest": part.digest, "side": side_of(record), **place}
    return {"network": network, "views": {"mean": prepared["mean"], "std": prepared["std"]}}
