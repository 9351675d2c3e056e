"""Encoders by name: `timm:NAME`, `onnx:FILE`, `hf:NAME`, `patches:COUNT`, several with "+" between, or a function."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scanmix.config import UserError, in_short, unknown_name
from scanmix.distributed.engine import find_device
from scanmix.features.encoder import AnyEncoder, FrozenEncoder, JoinedEncoder
from scanmix.features.hf_encoder import open_hf
from scanmix.features.onnx_encoder import open_onnx, split_options
from scanmix.features.patch_encoder import open_patches
from scanmix.features.timm_encoder import open_timm

OPENERS: dict[str, Callable[[str, torch.device], FrozenEncoder]] = {
    "timm": open_timm, "onnx": open_onnx, "hf": open_hf, "patches": open_patches,
}  # fmt: skip
LEAST_DIGITS = 8
"""Of a hash that is asked for: fewer would fit many files."""


def is_encoder(text: str) -> bool:
    """Whether a text names an encoder, not a file: `timm:resnet50`."""
    kind, colon, _ = text.partition(":")
    return bool(colon) and kind in OPENERS


def open_encoder(
    source: str | Callable[[Tensor], Any] | AnyEncoder, *, digest: str | None = None, device: str = "auto"
) -> AnyEncoder:
    """Open an encoder, which turns pictures into features and is not trained here.

    Args:
        source: `timm:NAME`, `timm:NAME@FILE`, `onnx:FILE` with options, `hf:NAME`, `patches:COUNT` (it has no weights),
            or several of these with "+" between them; or a function from pictures as they are, (B, C, H, W) uint8, to
            their features (B, D).
        digest: hash of the weights, or at least its first 8 digits: any other are refused. A function is known by it
            alone: give it another whenever the function would return other features. Without one, its features are
            held in memory and computed each time.
        device: where it computes, as for training.

    Raises:
        UserError: `source` is none of these, a package is missing, weights cannot be had, or have another hash.
    """
    if isinstance(source, str):
        where = find_device(device)
        parts = tuple(_opened(text, where) for text in _split(source))
        encoder: AnyEncoder = parts[0] if len(parts) == 1 else JoinedEncoder(parts)
    elif isinstance(source, FrozenEncoder | JoinedEncoder):
        encoder = source
    elif callable(source):
        name = str(getattr(source, "__name__", type(source).__name__))
        return FrozenEncoder(name, "function", digest, source)
    else:
        raise UserError(f"{in_short(source)} is no encoder; give {_forms()}, or a function from pictures to features")
    if digest is not None:
        _check(encoder, digest)
    return encoder


def placed(source: str) -> str:
    """Return the text of an encoder with whole paths of files, so that it opens the same from another folder."""
    return "+".join(map(_placed, _split(source)))


def _split(source: str) -> list[str]:
    return re.split(rf"\+(?=(?:{'|'.join(OPENERS)}):)", source)


def _placed(text: str) -> str:
    kind, _, rest = text.partition(":")
    if kind == "onnx":
        file, options = split_options(rest)
        return ":".join([f"onnx:{_whole(file)}", *(f"{name}={value}" for name, value in options.items())])
    if kind == "timm" and "@" in rest:
        name, _, file = rest.partition("@")
        return f"timm:{name}@{_whole(file)}"
    return f"hf:{_whole(rest)}" if kind == "hf" and Path(rest).expanduser().is_dir() else text


def _whole(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _opened(text: str, device: torch.device) -> FrozenEncoder:
    kind, _, rest = text.partition(":")
    if kind not in OPENERS:
        raise unknown_name("kind of encoder", kind, OPENERS)
    if not rest:
        raise UserError(f"{text!r} names no encoder; give {_forms()}")
    return OPENERS[kind](rest, device)


def _forms() -> str:
    return "timm:NAME, onnx:FILE, hf:NAME or patches:COUNT"


def _check(encoder: AnyEncoder, digest: str) -> None:
    """Refuse an encoder whose weights have another hash than the one that is asked for."""
    found = encoder.digest or ""
    if len(digest) < LEAST_DIGITS or not found.startswith(digest):
        raise UserError(
            f"{encoder.name} has weights with the hash {found[:16] or 'unknown'}, not {digest[:16]} as asked for; "
            "bring back the file that was used, or begin anew with this one"
        )
