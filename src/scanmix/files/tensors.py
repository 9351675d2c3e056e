"""Tensors on disk with a checksum: safetensors for results, `torch.save` for the state of training.

No file is unpickled: safetensors has no pickles, and `torch.load` is called with `weights_only=True`.
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
    """Write tensors as safetensors, atomically, with their SHA-256 in the metadata.

    Args:
        path: the file.
        tensors: name -> tensor. Shape: any.

    Raises:
        CannotWrite: as `atomic_write`.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(stored, metadata={SEAL: digest(stored)})
    atomic_write(path, lambda aside: aside.write_bytes(content))  # `save_file` would make temporary files of its own


def read_tensors(path: Path, fix: str = "", device: str | torch.device = "cpu") -> Tensors:
    """Read safetensors; a file without a checksum, from an earlier version, is accepted.

    Args:
        path: the file.
        fix: what to do about a damaged file, for the error.
        device: where the tensors are put.

    Raises:
        UserError: the file cannot be read, or its checksum is wrong.
    """
    with reading(path, fix):
        return {name: tensor.to(device) for name, tensor in parse_tensors(path.read_bytes()).items()}


def parse_tensors(content: bytes) -> Tensors:
    """Return the tensors in the bytes of a file of `write_tensors`. Call it in a block of `reading`.

    Raises:
        ValueError: the checksum is wrong.
        Exception: of another type, if the bytes are damaged.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # 8 bytes of its length, then itself
    if header.get("__metadata__", {}).get(SEAL) not in (None, digest(tensors)):
        raise ValueError("its checksum is another than when it was written")
    return tensors


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested tensors and numbers with `torch.save`, atomically; it stores a checksum (CRC-32) of every part.

    The file is made in memory first, so that takes as much memory as the state.

    Raises:
        CannotWrite: as `atomic_write`.
    """

    def write(aside: Path) -> None:
        buffer = io.BytesIO()  # writing to a file, PyTorch replaces errors of a full disk and Ctrl-C by its own error
        torch.save(dict(content), buffer)
        aside.write_bytes(buffer.getbuffer())

    atomic_write(path, write)


def read_state(path: Path, device: str | torch.device = "cpu", fix: str = "") -> Any:
    """Read a file of `write_state` after checking its checksums.

    Args:
        path: the file.
        device: where the tensors are put.
        fix: what to do about a damaged file, for the error.

    Raises:
        UserError: the file cannot be read, or a checksum is wrong.
    """
    with reading(path, fix):
        return parse_state(path.read_bytes(), device)


def parse_state(content: bytes, device: str | torch.device = "cpu") -> Any:
    """Return the content in the bytes of a file of `write_state`. Call it in a block of `reading`.

    Raises:
        ValueError: a checksum is wrong.
        Exception: of another type, if the bytes are damaged.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        if (broken := parts.testzip()) is not None:
            raise ValueError(f"the checksum of its part {broken} is another than when it was written")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a hex SHA-256 of the names, types, shapes and bytes of tensors, in the order of their names.

    Args:
        tensors: name -> tensor on the CPU. Shape: any.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in tensor.reshape(-1).view(torch.uint8).split(CHUNK) if tensor.numel() else ():
            found.update(part.numpy().data)
    return found.hexdigest()
