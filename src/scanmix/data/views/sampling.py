"""What a random view is, whatever it looks at, and how several looks are taken in one go.

Many examples together are quicker to look at than a few at a time, so the views of a training step are made at once;
they are drawn as if they were made one after the other.

Legend: B examples, of all looks together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor


class View(Protocol):
    """A random way to look at examples."""

    def __call__(self, images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
        """Return what a network sees of these examples, which are those of one look, or of several: see `in_turn`."""


def draw_by_part(
    draw: Callable[[int], tuple[Tensor, ...]], parts: Sequence[int] | None, count: int
) -> tuple[Tensor, ...]:  # fmt: skip
    """Draw for `count` examples; or, where there are `parts`, for so many of each look, one look after the other.

    `draw` takes a number of examples and returns draws with a row for each. Shape: -> (B, ...) each.
    """
    return tuple(torch.cat(kind) for kind in zip(*map(draw, [count] if parts is None else parts), strict=True))
