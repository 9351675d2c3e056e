"""Label-free results kept by what they were made of: computed once, shared by every run that asks again.

A stage that was cut short continues from its last saved epoch. Files are safetensors and JSON; a file is
written aside, flushed and renamed, so what is there is whole.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scanmix.engine import Engine
from scanmix.files import write_aside

FORMAT = 1
"""Part of every key: raised when a stage's maths changes, so that no stale result is found."""
SAVE_EVERY = 10
"""Epochs between two saves of a stage that is under way."""

Tensors = dict[str, Tensor]


def content_key(parts: Mapping[str, Any]) -> str:
    """Return a short hash of JSON-able parts; the same parts give the same key on every machine."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def cached(engine: Engine, stage: str, key: str, compute: Callable[[Path | None], Tensors]) -> Tensors:
    """Return the tensors stored under `stage` and `key` in the engine's cache, or compute and store them.

    `compute` is handed the file where it may keep unfinished work (none without a cache, and in other processes
    than the first, which alone reads and writes).
    """
    from safetensors.torch import load, save_file

    path = engine.cache and engine.cache / f"{stage}-{key}.safetensors"
    if stored := engine.told(lambda: _content(path)):
        return load(stored)
    if path is None:
        return compute(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute(unfinished).items()}
    write_aside(path, lambda aside: save_file(tensors, aside))
    unfinished.unlink(missing_ok=True)
    return tensors


def resumable(
    engine: Engine, path: Path | None, parts: Mapping[str, Any], epochs: int, run_epoch: Callable[[int], None]
) -> None:
    """Run the epochs of a stage, saving `parts` (things with a `state_dict`) to `path` every few.

    What `path` already holds is loaded and not run again.
    """
    done = 0
    if content := engine.told(lambda: _content(path)):
        stored = torch.load(io.BytesIO(content), map_location=engine.device, weights_only=True)
        done = stored["epoch"]
        for name, part in parts.items():
            part.load_state_dict(stored["parts"][name])
    for epoch in range(done, epochs):
        run_epoch(epoch)
        if path is not None and (epoch + 1) % SAVE_EVERY == 0 and epoch + 1 < epochs:
            state = {"epoch": epoch + 1, "parts": {name: part.state_dict() for name, part in parts.items()}}
            write_aside(path, functools.partial(torch.save, state))


def _content(path: Path | None) -> bytes:
    """All of a file; nothing where there is none."""
    return path.read_bytes() if path is not None and path.exists() else b""
