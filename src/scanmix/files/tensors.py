"""Tensors on disk with a checksum: safetensors for results, `torch.save` for what training goes on from.

Nothing is ever unpickled: safetensors, and `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from scanmix.files.atomic import atomic_write
from scanmix.files.errors import reading
from scanmix.files.sealed import SEAL

Tensors = dict[str, Tensor]
CHUNK = 1 << 26
"""Bytes that are hashed together."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, their SHA-256 in its metadata.

    Raises:
        CannotWrite: as `atomic_write`.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(stored, metadata={SEAL: digest(stored)})
    atomic_write(path, lambda aside: aside.write_bytes(content))  # save_file has temporary files of its own


def read_tensors(path: Path, fix: str = "", device: str | torch.device = "cpu") -> Tensors:
    """Read safetensors; a file of an earlier version has no checksum and is taken as it is.

    Raises:
        UserError: it cannot be read, or is not as it was written.
    """
    with reading(path, fix):
        return {name: tensor.to(device) for name, tensor in parse_tensors(path.read_bytes()).items()}


def parse_tensors(content: bytes) -> Tensors:
    """Return what a file of `write_tensors` holds; call it in a block of `reading`.

    Raises:
        Exception: any, where it is damaged.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # as the format is laid down
    if header.get("__metadata__", {}).get(SEAL) not in (None, digest(tensors)):
        raise ValueError("its checksum is another than when it was written")
    return tensors


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested tensors and numbers with `torch.save`, which keeps a checksum (CRC-32) of every part.

    Raises:
        CannotWrite: as `atomic_write`.
    """

    def write(aside: Path) -> None:
        buffer = io.BytesIO()  # of a file PyTorch hides a full disk and Ctrl-C alike behind an error of its own
        torch.save(dict(content), buffer)
        aside.write_bytes(buffer.getbuffer())

    atomic_write(path, write)


def read_state(path: Path, device: str | torch.device = "cpu", fix: str = "") -> Any:
    """Read what `write_state` wrote, once its checksums hold.

    Raises:
        UserError: it cannot be read, or is not as it was written.
    """
    with reading(path, fix):
        return parse_state(path.read_bytes(), device)


def parse_state(content: bytes, device: str | torch.device = "cpu") -> Any:
    """Return what a file of `write_state` holds; call it in a block of `reading`.

    Raises:
        Exception: any, where it is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        if (broken := parts.testzip()) is not None:
            raise ValueError(f"the checksum of its part {broken} is another than when it was written")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, whatever the order."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in tensor.reshape(-1).view(torch.uint8).split(CHUNK) if tensor.numel() else ():
            found.update(part.numpy().data)
    return found.hexdigest()
