"""Label-free results kept by what they were made of: computed once, shared by every run that asks again.

A stage that was cut short continues from its last saved epoch. A file is written aside, flushed and renamed, so what
is there is whole; it carries a checksum, and a damaged one is made again.
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
"""Part of every key: raised when a stage's maths changes, so that no stale result is found."""
MOST_LOST = 120.0
"""Seconds of a stage that a kill may cost at most, where an epoch is shorter."""
OURS = r"[a-z]+-[0-9a-f]{20}\.(?:safetensors|unfinished)"
"""What files of the cache are called."""


def content_key(parts: Mapping[str, Any]) -> str:
    """Return a short hash of JSON-able parts; the same parts give the same key on every machine."""
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

    What is stored and damaged is made again, with a warning; a cache that cannot be written costs a warning, too.

    Args:
        engine: its first process alone reads and writes.
        stage: what is computed, a word.
        key: hash of all that decides the result.
        compute: is handed the file where it may keep unfinished work (none without a cache, and in other processes).
        fits: whether tensors are what `compute` would return, as far as their names and shapes tell.
    """
    path = engine.cache and engine.cache / f"{stage}-{key}.safetensors"
    unfinished = path and path.with_suffix(".unfinished")
    if stored := engine.broadcast_bytes(lambda: _whole(path, lambda content: fits(parse_tensors(content)))):
        if unfinished is not None:
            with suppress(OSError):  # a kill may have come between the result and this
                unfinished.unlink(missing_ok=True)
        return load(stored)
    if path is not None:
        with suppress(OSError):  # the first file to be written will say so
            path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, [OURS])
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute(unfinished).items()}
    if path is not None and unfinished is not None and _kept(lambda: write_tensors(path, tensors)):
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
    """Run the epochs of a stage, saving `parts` (things with a `state_dict`) to `path` now and then.

    What `path` already holds is loaded and not run again. It is saved after an epoch where else more than `MOST_LOST`
    seconds of work could be lost before the next chance.

    Raises:
        KeyboardInterrupt: of Ctrl-C; says what of `stage` is kept and what is lost.
    """
    epoch = saved = _restore(engine, path, parts)
    saved_at = time.monotonic()
    try:
        for epoch in range(saved, epochs):
            started = time.monotonic()
            run_epoch(epoch)
            now = time.monotonic()
            unsaved = now - saved_at + now - started  # once the next epoch, as long as this one, is over
            if path is not None and unsaved > MOST_LOST and epoch + 1 < epochs:
                state = {"epoch": epoch + 1, "parts": {name: part.state_dict() for name, part in parts.items()}}
                if _kept(functools.partial(write_state, path, state)):
                    saved = epoch + 1
                saved_at = time.monotonic()
    except KeyboardInterrupt:
        lost = f"{epoch - saved} more and the one under way are lost" if epoch > saved else "the one under way is lost"
        raise KeyboardInterrupt(f"{saved} of {epochs} epochs of {stage} are kept, {lost}") from None


def _restore(engine: Engine, path: Path | None, parts: Mapping[str, Any]) -> int:
    """Load the unfinished work at `path` into the parts; return how many epochs that was, 0 where there is none."""
    content = engine.broadcast_bytes(lambda: _whole(path, lambda found: _is_state(parse_state(found), parts)))
    if not content:
        return 0
    stored = parse_state(content, engine.device)
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(stored["parts"][name])
    except Exception as error:  # other shapes; what was half loaded is put back
        warnings.warn(f"{path} does not fit ({error}); this stage begins anew", stacklevel=2)
        for name, part in parts.items():
            part.load_state_dict(before[name])
        return 0
    return int(stored["epoch"])


def _is_state(stored: Any, parts: Mapping[str, Any]) -> bool:
    """Whether a file holds what `resumable` saves of these parts."""
    return isinstance(stored["epoch"], int) and stored["epoch"] > 0 and stored["parts"].keys() == parts.keys()


def _whole(path: Path | None, fits: Callable[[bytes], bool]) -> bytes:
    """All of a file; nothing where there is none, or a damaged one, which is told."""
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


def _kept(write: Callable[[], None]) -> bool:
    """Whether a file of the cache could be written; if not, that is told and the work goes on without."""
    try:
        write()
    except CannotWrite as error:
        warnings.warn(f"{error}; the training goes on, and nothing of this is kept", stacklevel=2)
        return False
    return True
