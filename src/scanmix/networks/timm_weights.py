"""Networks of timm with their published weights, or with those of a file; needs the extra `timm`.

Legend: C channels in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from scanmix.config import UserError, file_path, in_short, install, unknown_name
from scanmix.files import in_words, reading
from scanmix.files.tensors import Tensors


def with_network(name: str) -> Any:
    """Return timm, if it is installed and has a network of this name.

    Raises:
        UserError: it is not, or has not.
    """
    try:
        import timm
    except ImportError:
        raise UserError(f"timm:{name} needs timm: {install('timm')}") from None
    known = timm.list_models()
    if name.partition(".")[0] not in known and ":" not in name:
        raise unknown_name("network of timm", name, _like(name, known))
    return timm


def created(name: str, channels: int = 3, *, pretrained: bool = False) -> Any:
    """Return a network of timm without its classifier, with fresh weights or with the published ones.

    Args:
        name: as timm has it, with or without a tag; `hf-hub:` and `local-dir:` name other places.
        channels: of its pictures, C.
        pretrained: fetch its weights from the hub, or take them from the hub's local cache.

    Raises:
        UserError: timm is not installed or has no such network, or the weights cannot be had.
    """
    timm = with_network(name)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels)
    except Exception as error:  # hubs fail in many ways
        if not pretrained:
            raise
        raise UserError(
            f"timm:{name} cannot be had ({in_words(error)}); on a machine without a network, copy a file of its "
            f"weights there and say timm:{name}@FILE"
        ) from None


def begun(name: str, file: str, channels: int = 3) -> Any:
    """Return a network of timm without its classifier, with the weights of a file, or with the published ones.

    Args:
        name: as timm has it.
        file: safetensors or a PyTorch state, with timm's names; a classifier in it is left out. Empty: the published
            weights.
        channels: of its pictures, C.

    Raises:
        UserError: as `created`; or the file cannot be read, or is of another network.
    """
    network = created(name, channels, pretrained=not file)
    if file:
        _load(network, name, file_path("the file of weights", file))
    return network


def in_gray(weights: Tensors, first: str) -> Tensors:
    """Return weights for gray pictures: the first convolution answers a gray picture as it did the same one in color.

    Shape: its kernel (O, 3, h, w) -> (O, 1, h, w).

    Args:
        weights: of a network of color pictures, by name.
        first: name of that convolution.
    """
    return weights | {f"{first}.weight": weights[f"{first}.weight"].sum(1, keepdim=True)}


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
