"""Views in batches beside views of one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scanmix.data.views import Views, ViewSettings, make_views
from scanmix.progress import Bar, progress
from speed.made import made_examples
from speed.one_by_one import single_views
from speed.pil_views import View, like, to_pixels
from speed.rows import Row
from speed.timing import Timing, interleave, ready

Batched: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]

KINDS = ("weak", "strong", "contrastive")
BATCH, SIDE = 512, 32
ROUNDS = 5
"""Batches in one timed turn."""
REPEATS = 5


def rows(bar: Bar) -> list[Row]:
    """Time the three random views of 32x32x3 images."""
    images = made_examples(BATCH, (3, SIDE, SIDE)).images
    views = make_views(ViewSettings(), images, flip=True)
    assert isinstance(views, Views)
    pixels, draws = to_pixels(images), torch.Generator().manual_seed(0)
    published, maker = single_views(views, SIDE)
    singles = {maker: published, "Pillow": like(views, SIDE)}
    found = []
    with progress("views", REPEATS * len(KINDS) * (1 + len(singles)), bar) as steps:
        for kind in KINDS:
            batched: Batched = getattr(views, kind)
            batched(images, draws)
            candidates = {kind: ready(partial(in_batches, batched, images, draws))}
            for name, single in singles.items():
                candidates[f"{kind}, one by one, {name}"] = ready(partial(one_by_one, getattr(single, kind), pixels))
            mine, *theirs = interleave(candidates, REPEATS, steps).values()
            found += [beside(kind, mine, name, other) for name, other in zip(singles, theirs, strict=True)]
    return found


def in_batches(view: Batched, images: Tensor, draws: torch.Generator) -> None:
    for _ in range(ROUNDS):
        view(images, draws)


def one_by_one(view: View, pixels: np.ndarray) -> None:
    for _ in range(ROUNDS):
        torch.stack([view(Image.fromarray(image)) for image in pixels])


def beside(kind: str, mine: Timing, name: str, theirs: Timing) -> Row:
    count = ROUNDS * BATCH
    note = f"{count / mine.best:,.0f} against {count / theirs.best:,.0f} images/s, one process each"
    return Row(f"{kind} views, {count:,} of 32x32x3", mine, f"one by one, {name}", theirs, note)
