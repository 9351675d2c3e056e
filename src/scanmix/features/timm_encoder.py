"""Encoders of timm: `timm:NAME`, or `timm:NAME@FILE` with weights in a file; needs the extra `timm`.

Legend: B batch, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from scanmix.config import UserError, file_path, in_short, unknown_name
from scanmix.features.encoder import FrozenEncoder
from scanmix.features.preparation import INTERPOLATIONS, Preparation
from scanmix.files import in_words, reading
from scanmix.files.tensors import Tensors, digest


def open_timm(text: str, device: torch.device) -> FrozenEncoder:
    """Return a network of timm with its pretrained weights and without its classifier.

    Pictures are prepared as timm's data settings of the network say.

    Args:
        text: what follows `timm:`: a name as timm has it, with or without a tag; and after an `@` a file of weights,
            safetensors or a PyTorch state, with timm's names.
        device: where it computes.

    Raises:
        UserError: timm is not installed, has no such network or no weights for it, they cannot be fetched, or the file
            cannot be read or is of another network.
    """
    name, _, file = text.partition("@")
    network, options = _network(name, file)
    wanted = options["interpolation"]
    prepared = Preparation(
        size=tuple(options["input_size"][1:]),
        mean=tuple(map(float, options["mean"])),
        std=tuple(map(float, options["std"])),
        crop=float(options["crop_pct"]),
        interpolation=wanted if wanted in INTERPOLATIONS else "bicubic",
    )
    weights = digest(network.state_dict())
    license_ = network.pretrained_cfg.get("license")
    network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # up to 1.7 times as fast
    return FrozenEncoder(f"timm:{text}", f"timm:{name}", weights, network, prepared, license_, device)


def _network(name: str, file: str) -> tuple[Any, dict[str, Any]]:
    """Return the network, and how it wants its pictures."""
    try:
        import timm
    except ImportError:
        raise UserError(f"timm:{name} needs timm: pip install 'scanmix[timm]'") from None
    known = timm.list_models()
    if name.partition(".")[0] not in known and ":" not in name:  # with a colon, it names a place: hf-hub:, local-dir:
        raise unknown_name("network of timm", name, _like(name, known))
    try:
        network = timm.create_model(name, pretrained=not file, num_classes=0)
    except Exception as error:  # hubs fail in many ways
        raise UserError(
            f"timm:{name} cannot be had ({in_words(error)}); on a machine without a network, copy a file of its "
            f"weights there and say timm:{name}@FILE"
        ) from None
    if file:
        _load(network, name, file_path("the file of weights", file))
    return network, timm.data.resolve_model_data_config(network)


def _like(name: str, known: list[str]) -> list[str]:
    """Return the known names that begin as `name` does, or all, which are more than a thousand, if none does."""
    return [other for other in known if other[:4] == name[:4]] or known


def _load(network: nn.Module, name: str, path: Path) -> None:
    """Load weights from a file into a network; a classifier in the file is left out."""
    with reading(path, "it must hold weights as safetensors or as a state that torch.save wrote"):
        found = _state(path)
    fresh = network.state_dict()
    fitting = {key: found[key] for key in fresh if key in found and found[key].shape == fresh[key].shape}
    missing = [key for key in fresh if key not in fitting]
    if missing:
        raise UserError(f"{path} lacks {missing[0]} of {name} ({len(missing)} of {len(fresh)} tensors in all)")
    network.load_state_dict(fitting)


def _state(path: Path) -> Tensors:
    """Return the tensors of a file by name; nothing in it is run."""
    if path.suffix == ".safetensors":
        return load(path.read_bytes())
    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        found = found[key] if isinstance(found.get(key), dict) else found
    if not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError(f"it holds {in_short(list(found))}, not tensors alone")
    return dict(found)
