"""Random views, and how the views of several batches are drawn together.

One large batch of views is faster to compute than several small ones, so the views of all batches of a training step
are computed together. The random draws are those of the batches one after the other, so that results do not change.

Legend: B examples, of all parts together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor


class View(Protocol):
    """A function that makes random views of examples."""

    def __call__(self, images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
        """Return views of the examples. Shape: (B, ...) -> (B, ...).

        Args:
            images: images or vectors.
            generator: source of all draws.
            parts: sizes of the batches that `images` joins, if there are several: see `draw_by_part`.
        """


def draw_by_part(
    draw: Callable[[int], tuple[Tensor, ...]], parts: Sequence[int] | None, count: int
) -> tuple[Tensor, ...]:  # fmt: skip
    """Draw for `count` examples at once; or, if there are `parts`, for the examples of each part in turn.

    `draw` takes a number of examples and returns draws with one row an example. Shape: -> (B, ...) each.
    """
    return tuple(torch.cat(kind) for kind in zip(*map(draw, [count] if parts is None else parts), strict=True))
