"""Pixels on the disk: images too large for memory are decoded once into a `.npy` file and read from it page by page.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pydantic.dataclasses
import torch
from torch import Tensor

from scanmix.config import STRICT, UserError
from scanmix.data.decoding import threaded
from scanmix.files import CannotWrite, read_json, reading, remove_leftovers, replacing, write_json, writing
from scanmix.files.npy import MAPPED, stays_on_disk

CHUNK = 1 << 26
"""Bytes that are checked together."""
CACHE_FILES = r"[0-9a-f]{20}\.(?:npy|json)"
"""Pattern of the file names in the cache of images."""
Outcome = np.ndarray | str
"""A decoded image (C, H, W) uint8, or the reason why there is none."""


class Decoded(NamedTuple):
    """Images of the files that could be read, and the reasons why others could not."""

    images: Tensor
    """(M, C, H, W) uint8, in the order of the files."""
    failed: dict[int, str]
    """Position of a file -> reason."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class About:
    """Content of the JSON file beside a file of decoded images."""

    failed: dict[str, str]
    """Position of a file -> reason."""
    pixels: str
    """SHA-256 of all bytes of the images."""


@dataclass(frozen=True, eq=False)
class OffloadedImages:
    """Images that are too large for the device that trains: they stay where they are, and batches are copied there.

    `images` is (N, C, H, W) uint8. Each access copies from the host to the device.
    """

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
        """Return images on the device. Shape: (B,) -> (B, C, H, W)."""
        here = index.to(self.images.device) if isinstance(index, Tensor) else index
        return self.images[here].to(self.device)

    def split(self, size: int) -> Iterable[Tensor]:
        """Yield all images, `size` at a time, without moving them. Shape: -> (B, C, H, W) each."""
        yield from self.images.split(size)


def on_device(images: Tensor, device: torch.device) -> Tensor | OffloadedImages:
    """Move images to the device that trains; images too large for memory are moved batch by batch when used.

    Shape: (N, C, H, W) -> same.
    """
    moves = device.type != images.device.type
    return OffloadedImages(images, device) if moves and stays_on_disk(images.nbytes) else images.to(device)


def default_cache() -> Path:
    """Return the folder of cached files: `SCANMIX_CACHE` if set, else `scanmix` in the user's cache folder."""
    if chosen := os.environ.get("SCANMIX_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scanmix"


def collect_decoded(outcomes: Iterable[Outcome], paths: Sequence[Path], shape: tuple[int, int, int]) -> Decoded:
    """Collect decoded images into one tensor, in memory or, where they are too large for that, in a file.

    The name of the file is a hash of the shape and of paths, sizes and times of the image files, so that the same files
    are not decoded again.

    Args:
        outcomes: a decoded image or a reason for each file, in order; not read where the file exists already.
        paths: the image files.
        shape: (C, H, W) of every image.

    Raises:
        UserError: the cache cannot be written.
    """
    size = len(paths) * math.prod(shape)
    if not stays_on_disk(size):
        return _in_memory(outcomes, len(paths), shape)
    path = default_cache() / "images" / f"{_key(paths, shape)}.npy"
    stored = _stored(path, len(paths), shape)
    if stored is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, [CACHE_FILES])
            _write(path, outcomes, len(paths), shape)
        except (OSError, CannotWrite) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{path} cannot be written: {why}. It needs {size / 1e9:.1f} GB: let SCANMIX_CACHE name a folder with "
                "so much room, or decode smaller images with --size"
            ) from None
        stored = _opened(path, len(paths), shape)
    return stored


def _stored(path: Path, count: int, shape: tuple[int, int, int]) -> Decoded | None:
    """Open images that were decoded before; None if there are none, or, with a warning, if the file is damaged."""
    if not path.exists():
        return None
    try:
        with reading(path):
            digest = hashlib.sha256()
            about = read_json(path.with_suffix(".json"), About)
            mapped = np.load(path, mmap_mode=MAPPED)
            rows = max(1, CHUNK // max(1, math.prod(mapped.shape[1:])))
            starts = range(0, len(mapped), rows)
            for part in threaded(lambda start: mapped[start : start + rows].tobytes(), starts, "checking images"):
                digest.update(part)
            if digest.hexdigest() != about.pixels:
                raise ValueError("its checksum is another than when it was written")
        return _opened(path, count, shape)
    except UserError as error:
        warnings.warn(f"{error}; the images are decoded again", stacklevel=3)
        return None


def _opened(path: Path, count: int, shape: tuple[int, int, int]) -> Decoded:
    """Map the file of decoded images into memory.

    Raises:
        UserError: the file is damaged, or holds images of another number or shape.
    """
    with reading(path):
        failed = {int(place): why for place, why in read_json(path.with_suffix(".json"), About).failed.items()}
        mapped = np.load(path, mmap_mode=MAPPED)
        if mapped.dtype != np.uint8 or mapped.shape != (count - len(failed), *shape):
            raise ValueError(f"it holds {mapped.dtype} of {mapped.shape}")
        return Decoded(torch.from_numpy(mapped), failed)


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
    """Write the array to a part file while images are decoded, then the JSON file, and rename the array last."""
    failed: dict[str, str] = {}
    digest = hashlib.sha256()
    with replacing(path) as aside:
        with writing(path), aside.open("wb") as file:
            _write_header(file, (count, *shape))
            for place, outcome in enumerate(outcomes):
                if isinstance(outcome, str):
                    failed[str(place)] = outcome
                else:
                    file.write(outcome.data)
                    digest.update(outcome.data)
            file.seek(0)  # the header is padded, so its length does not depend on the number of rows
            _write_header(file, (count - len(failed), *shape))
        write_json(path.with_suffix(".json"), {"failed": failed, "pixels": digest.hexdigest()})


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
