"""Pixels on the disk: images too many for memory are decoded once into one `.npy`, and read from it page by page.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.npy import MAPPED, stays_on_disk

Outcome = np.ndarray | str
"""A decoded image (C, H, W) uint8, or why there is none."""


class Decoded(NamedTuple):
    """Images of the files that could be read, and why the others could not."""

    images: Tensor
    """(M, C, H, W) uint8, in the order of the files."""
    failed: dict[int, str]
    """Position of a file -> reason."""


@dataclass(frozen=True, eq=False)
class Fetched:
    """Images that stay where they are, too many for the device that trains: what is asked for is brought there."""

    images: Tensor
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return self.images.shape

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return some images, on the device. Shape: (B,) -> (B, C, H, W)."""
        here = index.to(self.images.device) if isinstance(index, Tensor) else index
        return self.images[here].to(self.device)

    def split(self, size: int) -> Iterable[Tensor]:
        """Yield all images, so many at a time, where they are."""
        yield from self.images.split(size)


def on_device(images: Tensor, device: torch.device) -> Tensor | Fetched:
    """Bring images to the device that trains, once; or batch by batch, where they are too many to be held."""
    moves = device.type != images.device.type
    return Fetched(images, device) if moves and stays_on_disk(images.nbytes) else images.to(device)


def default_cache() -> Path:
    """Return the folder of what can be made again: `SCANMIX_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("SCANMIX_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scanmix"


def gather(outcomes: Iterable[Outcome], paths: Sequence[Path], shape: tuple[int, int, int]) -> Decoded:
    """Put decoded files of one shape (C, H, W) into one tensor: in memory, or in a file where they are too many.

    The file has its name from paths, sizes and times of the files, and the shape: what was decoded once is not
    decoded again.

    Raises:
        UserError: the cache cannot be written.
    """
    size = len(paths) * math.prod(shape)
    if not stays_on_disk(size):
        return _in_memory(outcomes, len(paths), shape)
    folder = default_cache() / "images"
    path = folder / f"{_key(paths, shape)}.npy"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, outcomes, len(paths), shape)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror}. It needs {size / 1e9:.1f} GB: let SCANMIX_CACHE name a "
                "folder with so much room, or decode smaller images with --size"
            ) from None
    failed = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    mapped = np.load(path, mmap_mode=MAPPED)
    return Decoded(torch.from_numpy(mapped), {int(place): why for place, why in failed.items()})


def _in_memory(outcomes: Iterable[Outcome], count: int, shape: tuple[int, int, int]) -> Decoded:
    images, failed, done = np.empty((count, *shape), dtype=np.uint8), {}, 0
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, str):
            failed[place] = outcome
        else:
            images[done] = outcome
            done += 1
    return Decoded(torch.from_numpy(images[:done]), failed)


def _write(path: Path, outcomes: Iterable[Outcome], count: int, shape: tuple[int, int, int]) -> None:
    """Write the array aside while the files are decoded, then what failed, and rename the array last."""
    failed: dict[int, str] = {}
    aside, beside = (path.with_name(f"{path.name}.{os.getpid()}.{end}") for end in ("part", "json.part"))
    try:
        with aside.open("wb") as file:
            _write_header(file, (count, *shape))
            for place, outcome in enumerate(outcomes):
                if isinstance(outcome, str):
                    failed[place] = outcome
                else:
                    file.write(outcome.data)
            file.seek(0)  # the header has room for any number of rows: its length stays
            _write_header(file, (count - len(failed), *shape))
            file.flush()
            os.fsync(file.fileno())
        beside.write_text(json.dumps(failed), encoding="utf-8")
        beside.replace(path.with_suffix(".json"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _key(paths: Sequence[Path], shape: tuple[int, int, int]) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    for path in paths:
        try:
            found = path.stat()
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            digest.update(f"{path}\0missing\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:20]
