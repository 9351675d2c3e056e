"""A cache of self-supervised results, by a hash of all that decides them: computed once and shared by all runs.

A stage that was interrupted continues from its last saved epoch. Files are written atomically and carry a checksum; a
damaged one is computed again.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load

from scanmix.config import UserError
from scanmix.distributed.engine import Engine
from scanmix.files import CannotWrite, reading, remove_leftovers
from scanmix.files.tensors import Tensors, parse_state, parse_tensors, write_state, write_tensors

FORMAT = 1
"""Part of every key: it is raised when the computation of a stage changes, so that no stale result is found."""
MOST_LOST = 120.0
"""Most seconds of work in a stage that a kill may cost, where an epoch is shorter."""
OURS = r"[a-z]+-[0-9a-f]{20}\.(?:safetensors|unfinished)"
"""Pattern of the names of the cache's files."""


def content_key(parts: Mapping[str, Any]) -> str:
    """Return a hash of 20 hex digits of parts that JSON can hold; equal parts give equal keys on every machine."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def cached(
    engine: Engine,
    stage: str,
    key: str,
    compute: Callable[[Path | None], Tensors],
    fits: Callable[[Tensors], bool] = lambda tensors: True,
) -> Tensors:
    """Return the tensors stored under `stage` and `key` in the engine's cache, or compute and store them.

    A stored file that is damaged is computed again, with a warning; a cache that cannot be written gives a warning.
    Shape: tensors by name, of any shape, on the CPU.

    Args:
        engine: its first process alone reads and writes the cache.
        stage: name of what is computed, one lowercase word.
        key: hash of all that decides the result (`content_key`).
        compute: called with the file for unfinished work, None without a cache and in processes other than the first.
        fits: says whether stored tensors are what `compute` would return, as far as their names and shapes tell.
    """
    path = engine.cache and engine.cache / f"{stage}-{key}.safetensors"
    unfinished = path and path.with_suffix(".unfinished")
    if stored := engine.broadcast_bytes(lambda: _read(path, lambda content: fits(parse_tensors(content)))):
        if unfinished is not None:
            with suppress(OSError):  # left by a kill between writing the result and removing this
                unfinished.unlink(missing_ok=True)
        return load(stored)
    if path is not None:
        with suppress(OSError):  # writing the first file will report it
            path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, [OURS])
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute(unfinished).items()}
    if path is not None and unfinished is not None and _written(lambda: write_tensors(path, tensors)):
        unfinished.unlink(missing_ok=True)
    return tensors


def resumable(
    engine: Engine,
    path: Path | None,
    parts: Mapping[str, Any],
    epochs: int,
    run_epoch: Callable[[int], None],
    stage: str = "this stage",
) -> None:
    """Run the epochs of a stage and save its state to `path` from time to time.

    Epochs that `path` already holds are loaded, not run again. The state is saved after an epoch if more than
    `MOST_LOST` seconds of work might otherwise be lost by the end of the next one.

    Args:
        engine: its first process reads and broadcasts the saved state.
        path: file of the state; nothing is saved without one.
        parts: what the state consists of, by name: modules and optimizers, all with a `state_dict`.
        epochs: number of epochs in all.
        run_epoch: runs the epoch of this number, from 0.
        stage: name of the stage in messages.

    Raises:
        KeyboardInterrupt: after Ctrl-C; says how many epochs of `stage` are saved and how many are lost.
    """
    epoch = saved = _restore(engine, path, parts)
    engine.tick(stage, saved, epochs, "")
    saved_at = time.monotonic()
    try:
        for epoch in range(saved, epochs):
            started = time.monotonic()
            run_epoch(epoch)
            now = time.monotonic()
            unsaved = now - saved_at + now - started  # by the end of the next epoch, if it takes as long as this one
            if path is not None and unsaved > MOST_LOST and epoch + 1 < epochs:
                state = {"epoch": epoch + 1, "parts": {name: part.state_dict() for name, part in parts.items()}}
                if _written(functools.partial(write_state, path, state)):
                    saved = epoch + 1
                saved_at = time.monotonic()
    except KeyboardInterrupt:
        lost = f"{epoch - saved} more and the one under way are lost" if epoch > saved else "the one under way is lost"
        raise KeyboardInterrupt(f"{saved} of {epochs} epochs of {stage} are kept, {lost}") from None


def _restore(engine: Engine, path: Path | None, parts: Mapping[str, Any]) -> int:
    """Load the state at `path` into the parts; return its number of epochs, 0 where there is none that fits."""
    content = engine.broadcast_bytes(lambda: _read(path, lambda found: _is_state(parse_state(found), parts)))
    if not content:
        return 0
    stored = parse_state(content, engine.device)
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(stored["parts"][name])
    except Exception as error:  # other shapes; parts that were loaded are restored
        warnings.warn(f"{path} does not fit ({error}); this stage begins anew", stacklevel=2)
        for name, part in parts.items():
            part.load_state_dict(before[name])
        return 0
    return int(stored["epoch"])


def _is_state(stored: Any, parts: Mapping[str, Any]) -> bool:
    """Whether a file holds a state of these parts as `resumable` saves it."""
    return isinstance(stored["epoch"], int) and stored["epoch"] > 0 and stored["parts"].keys() == parts.keys()


def _read(path: Path | None, fits: Callable[[bytes], bool]) -> bytes:
    """Return the content of a file; nothing where there is none, or with a warning, where it is damaged."""
    if path is None or not path.exists():
        return b""
    try:
        with reading(path):
            content = path.read_bytes()
            if not fits(content):
                raise ValueError("it holds something else")
    except UserError as error:
        warnings.warn(f"{error}; it is made again", stacklevel=2)
        return b""
    return content


def _written(write: Callable[[], None]) -> bool:
    """Whether a file of the cache could be written; if not, a warning says so and the training goes on."""
    try:
        write()
    except CannotWrite as error:
        warnings.warn(f"{error}; the training goes on, and nothing of this is kept", stacklevel=2)
        return False
    return True
