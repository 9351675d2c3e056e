"""Features of pictures by a frozen encoder: computed once, in batches, and kept in the cache.

Legend: N pictures, U different ones, B batch, D features.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError, check_type
from scanmix.data.duplicates import row_digests
from scanmix.data.examples import Examples
from scanmix.data.store import default_cache
from scanmix.features.encoder import AnyEncoder
from scanmix.features.feature_file import Distinct, FeatureFile, find_distinct
from scanmix.files import CannotWrite, locked
from scanmix.files.npy import stays_on_disk
from scanmix.progress import StageTick, Tick, of_stage

FORMAT = 1
"""Part of every key: it is raised when features are computed in another way, so that no stale ones are found."""
MOST_LOST = 20.0
"""Seconds of work after which what is finished is sealed; a kill costs no more than this and one batch."""
BATCH_PIXELS = 4 * 224 * 224
"""Pixels of a batch for each thread of a CPU. Larger ones cost up to twice the time: their maps are too large for what
the C library keeps, so that the system hands out zeroed pages anew for every layer."""
DEVICE_FACTOR = 64
"""How many times as large a batch is on other devices."""
MOST_IN_BATCH = 512


def embed(
    examples: Examples, encoder: AnyEncoder, cache: Path | None = None, tick: StageTick | None = None
) -> np.ndarray:
    """Return the features of all pictures, computed once: the next call with the same pictures and encoder finds them.

    They lie in `features/` of the cache, in a file whose name is a hash of the pictures, of the encoder's weights and
    of how it prepares pictures. Copies of a picture are computed once. A computation that was stopped goes on where it
    was sealed last. Memory grows with N by some 100 bytes for a picture, whatever its size and D. Devices may round
    differently: the one that computed a row decides it.

    Shape: -> (N, D) float16, read from the disk page by page; in memory for a function without a hash.

    Args:
        examples: images with or without right labels, in memory or on the disk.
        encoder: as of `open_encoder`.
        cache: folder of the cache; `SCANMIX_CACHE` or ~/.cache/scanmix when not given.
        tick: called with the stages "reading pictures", "checking features" and "computing features", and with how many
            pictures are done; the last two are left out where there is nothing to do.

    Raises:
        UserError: the examples are vectors or none, the encoder fails on them or returns numbers that half precision
            cannot hold, another process computes the same features, or the cache cannot be written.
        KeyboardInterrupt: after Ctrl-C; says how many pictures are finished.
    """
    check_type("examples", examples, Examples, "examples, such as scanmix.load returns")
    if examples.kind == "vector" or not len(examples):
        has = "holds vectors" if examples.kind == "vector" else "has no pictures"
        raise UserError(f"{examples.name!r} {has}; an encoder turns pictures into features")
    images = examples.images.cpu()
    digests = row_digests(images, of_stage("reading pictures", tick))
    distinct = find_distinct(digests)
    work = of_stage("computing features", tick)
    if encoder.digest is None:
        return _in_memory(images, distinct, encoder, work)
    key = _key(digests, tuple(images.shape), encoder)
    folder = (cache or default_cache()) / "features"
    with suppress(OSError):  # writing the first file will report it
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"computing the features {key}", name=f"{key}.lock"):
        file = FeatureFile.opened(folder / f"{key}.npy", distinct, of_stage("checking features", tick))
        if file is None or not file.is_complete:
            file = _computed(images, distinct, encoder, folder / f"{key}.npy", file, work)
        return file.mapped()


def missing(examples: Examples, encoder: AnyEncoder, cache: Path | None = None) -> int:
    """Return of how many different pictures `embed` would have to compute features: 0 where all are in the cache.

    Args:
        examples: as for `embed`, as are the next two.
        encoder: the encoder.
        cache: folder of the cache.
    """
    images = examples.images.cpu()
    digests = row_digests(images)
    distinct = find_distinct(digests)
    if encoder.digest is None:
        return len(distinct.first)
    key = _key(digests, tuple(images.shape), encoder)
    file = FeatureFile.opened((cache or default_cache()) / "features" / f"{key}.npy", distinct)
    return len(distinct.first) - (0 if file is None else file.done)


def _computed(
    images: Tensor, distinct: Distinct, encoder: AnyEncoder, path: Path, file: FeatureFile | None, tick: Tick | None
) -> FeatureFile:
    """Compute what the file lacks, and seal from time to time what is finished."""
    begun = 0 if file is None else file.done
    sealed = time.monotonic()
    try:
        for rows in _encoded(images, distinct, encoder, begun, tick):
            file = file or FeatureFile.created(path, distinct, rows.shape[1])
            if rows.shape[1] != file.shape[1]:
                raise UserError(f"{encoder.name} returned {rows.shape[1]} features, and {file.shape[1]} before")
            file.append(rows)
            if time.monotonic() - sealed > MOST_LOST:
                file.seal()
                sealed = time.monotonic()
        assert file is not None  # there is a picture
        file.seal()
        return file
    except BaseException as stop:
        with suppress(CannotWrite):  # the first error is the one to report
            if file is not None:
                file.seal()
        if isinstance(stop, CannotWrite):
            needs = "" if file is None else f" The features take {2 * math.prod(file.shape) / 1e9:.1f} GB in all;"
            raise UserError(f"{stop}.{needs} SCANMIX_CACHE may name another folder") from None
        if not isinstance(stop, KeyboardInterrupt):
            raise
        kept = 0 if file is None else file.done
        raise KeyboardInterrupt(
            f"the features of {kept} of {len(distinct.first)} pictures are kept; the same command goes on from there"
        ) from None


def _in_memory(images: Tensor, distinct: Distinct, encoder: AnyEncoder, tick: Tick | None) -> np.ndarray:
    """Compute features that cannot be kept, as nothing tells whether they would be the same the next time."""
    found, done = np.empty((0, 0), np.float16), 0
    for rows in _encoded(images, distinct, encoder, 0, tick):
        shape = (len(images), rows.shape[1])
        if done == 0 and stays_on_disk(2 * math.prod(shape)):
            raise UserError(
                f"{2 * math.prod(shape) / 1e9:.1f} GB of features are too much for memory; open the function with a "
                "digest (a text that changes when it does), and they are kept on the disk"
            )
        found = np.empty(shape, np.float16) if done == 0 else found
        found[distinct.copies(done, done + len(rows))] = distinct.repeated(done, rows)
        done += len(rows)
    return found


def _encoded(
    images: Tensor, distinct: Distinct, encoder: AnyEncoder, begun: int, tick: Tick | None
) -> Iterator[np.ndarray]:
    """Yield the features of the different pictures from number `begun` on, in batches. Shape: (B, D) float16 each."""
    done, total, started = begun, len(distinct.first), time.monotonic()
    if tick is not None:
        tick(done, total, "")
    for batch in _read_ahead(images, distinct.first[begun:], batch_size(images, encoder)):
        with np.errstate(over="ignore"):
            rows = encoder.encode(batch).numpy().astype(np.float16)
        if not np.isfinite(rows).all():
            raise UserError(
                f"{encoder.name} returned numbers that are not finite or beyond 65,504, which half precision cannot "
                f"hold, for a picture among numbers {distinct.first[done]} to {distinct.first[done + len(rows) - 1]}"
            )
        yield rows
        done += len(rows)
        if tick is not None:
            tick(done, total, f"{(done - begun) / (time.monotonic() - started):.0f} a second")


def _read_ahead(images: Tensor, places: np.ndarray, size: int) -> Iterator[Tensor]:
    """Yield the pictures at these places in batches; the next is read from the disk while one is worked on."""
    parts = torch.from_numpy(places).split(size)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(images.__getitem__, parts[0])
        for part in parts[1:]:
            batch, waiting = waiting.result(), pool.submit(images.__getitem__, part)
            yield batch
        yield waiting.result()


def batch_size(images: Tensor, encoder: AnyEncoder) -> int:
    """Return B, by the pixels of a picture before or after it is prepared, whichever are more.

    Shape: images (N, C, H, W).
    """
    sizes = [part.preparation.size for part in encoder.parts if part.preparation is not None]
    pixels = max(math.prod(size) for size in (*sizes, tuple(images.shape[2:])))
    on_cpu = all(part.device.type == "cpu" for part in encoder.parts)
    factor = torch.get_num_threads() if on_cpu else DEVICE_FACTOR
    return max(1, min(MOST_IN_BATCH, factor * BATCH_PIXELS // pixels))


def _key(digests: np.ndarray, shape: tuple[int, ...], encoder: AnyEncoder) -> str:
    """Return a hash of 20 hex digits of all that decides the features. Shape: digests (N, 2); `shape` (N, C, H, W)."""
    pictures = hashlib.sha256(f"{shape}".encode() + digests.astype("<u8").tobytes()).hexdigest()
    text = json.dumps({"format": FORMAT, "pictures": pictures, "encoder": encoder.key_parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
