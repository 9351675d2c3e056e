"""What files of tensors hold to the bit, and what two machines must have in common to compute the same bits."""

import hashlib
import platform
import struct
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

MACHINE_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn")


def processor() -> str:
    """The processor and what its vector units can do, as far as results in floating point depend on them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    kept = ("vendor_id", "cpu family", "model", "model name", "stepping")
    words = [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() in kept]
    return " ".join([*words, torch.backends.cpu.get_cpu_capability()])


def machine() -> dict[str, str]:
    """What two trainings must have in common to end with the same bits."""
    return {"processor": processor(), **{name: metadata.version(name) for name in MACHINE_PACKAGES}}


def digest(content: Any) -> str:
    """A hash of nested tables, lists, numbers and tensors: names, types, shapes and every bit."""
    found = hashlib.sha256()
    _add(found.update, content)
    return found.hexdigest()


def _add(update: Callable[[bytes], None], content: Any) -> None:
    if isinstance(content, dict):
        for key in sorted(content, key=str):
            update(f"key {key}\n".encode())
            _add(update, content[key])
    elif isinstance(content, list | tuple):
        update(f"list of {len(content)}\n".encode())
        for part in content:
            _add(update, part)
    elif isinstance(content, torch.Tensor):
        update(f"{content.dtype} {tuple(content.shape)}\n".encode())
        update(content.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(content, float):
        update(struct.pack("<d", content))
    else:
        update(f"{content!r}\n".encode())


def tensors(path: Path) -> Any:
    """What a file of tensors holds."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)


def summary(path: Path) -> dict[str, Any]:
    """What run a checkpoint is of, after how many epochs, and a hash of its state."""
    found = tensors(path)
    return {"identity": found["identity"], "epoch": found["epoch"], "state": digest(found["state"])}
