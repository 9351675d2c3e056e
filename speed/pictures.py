"""Reading a folder of photographs, beside the plain loop over its files."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import scanmix
from scanmix.progress import Bar, progress
from speed.made import made_examples
from speed.rows import Row
from speed.timing import interleave, ready

COUNT, SIDE = 5000, 256
SIZES = (32, 128)
"""Sides that are kept."""
REPEATS = 2


def rows(bar: Bar) -> list[Row]:
    """Load 5,000 JPEGs of 256x256."""
    found = []
    with tempfile.TemporaryDirectory() as kept, progress("pictures", 1 + 2 * REPEATS * len(SIZES), bar) as steps:
        folder = Path(kept)
        steps.advance(0, note="making JPEGs")
        write_folder(folder, COUNT, SIDE)
        steps.advance()
        for size in SIZES:
            mine, theirs = interleave(
                {
                    "scanmix.load": ready(partial(scanmix.load, folder, size=size)),
                    "one by one": ready(partial(one_by_one, folder, size)),
                },
                REPEATS,
                steps,
            ).values()
            note = f"{COUNT / mine.best:,.0f} images/s; files in the memory of the system"
            what = f"{COUNT:,} JPEGs of {SIDE}x{SIDE} to {size}x{size}"
            found.append(Row(what, mine, "one by one, Pillow", theirs, note))
    return found


def write_folder(folder: Path, count: int, side: int) -> None:
    """Write soft made images with some grain, a sub-folder for each class."""
    examples = made_examples(count, (3, 32, 32))
    grain = np.random.default_rng(0).normal(0, 6, (side, side, 1))
    for i, (image, label) in enumerate(zip(examples.images, examples.labels.tolist(), strict=True)):
        small = Image.fromarray(image.permute(1, 2, 0).numpy())
        pixels = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)) + grain
        place = folder / examples.class_names[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i:05d}.jpg", quality=90)


def one_by_one(folder: Path, size: int) -> torch.Tensor:
    """Decode, resize, stack. Shape: -> (N, 3, size, size) uint8."""
    pixels = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            pixels.append(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
