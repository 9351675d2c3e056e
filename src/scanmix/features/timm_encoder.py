"""Encoders of timm: `timm:NAME`, or `timm:NAME@FILE` with weights in a file; needs the extra `timm`.

Legend: B batch, D features.
"""

from __future__ import annotations

import torch

from scanmix.features.encoder import FrozenEncoder
from scanmix.features.preparation import INTERPOLATIONS, Preparation
from scanmix.files.tensors import digest
from scanmix.networks.timm_weights import begun


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
    network = begun(name, file)
    import timm

    options = timm.data.resolve_model_data_config(network)
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
