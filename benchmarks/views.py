"""Views in batches beside views of one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from benchmarks.made import made_examples
from benchmarks.pil_views import View, like, to_pixels
from benchmarks.rows import Row
from benchmarks.timing import interleave, ready
from scanmix.data.views import Views, ViewSettings, make_views
from scanmix.progress import Bar, progress

BATCH, SIDE = 512, 32
ROUNDS = 5
"""Batches in one timed go."""
REPEATS = 5


def rows(bar: Bar) -> list[Row]:
    """Time the three random views of 32x32x3 images."""
    images = made_examples(BATCH, (3, SIDE, SIDE)).images
    views = make_views(ViewSettings(), images, flip=True)
    assert isinstance(views, Views)
    single, pixels = like(views, SIDE), to_pixels(images)
    draws = torch.Generator().manual_seed(0)
    kinds: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor], View]] = {
        "weak": (views.weak, single.weak),
        "strong": (views.strong, single.strong),
        "contrastive": (views.contrastive, single.contrastive),
    }
    found = []
    with progress("views", 2 * REPEATS * len(kinds), bar) as steps:
        for name, (batched, one) in kinds.items():

            def together(view: Callable[[Tensor, torch.Generator], Tensor] = batched) -> None:
                for _ in range(ROUNDS):
                    view(images, draws)

            def apart(view: View = one) -> None:
                for _ in range(ROUNDS):
                    torch.stack([view(Image.fromarray(picture)) for picture in pixels])

            together()
            times = interleave({name: ready(together), f"{name}, one by one": ready(apart)}, REPEATS, steps)
            mine, theirs = times.values()
            count = ROUNDS * BATCH
            note = f"{count / mine.best:,.0f} against {count / theirs.best:,.0f} images/s, one process each"
            found.append(Row(f"{name} views, {count:,} of 32x32x3", mine, "one by one, Pillow", theirs, note))
    return found
