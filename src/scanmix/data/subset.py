"""A subset of the examples for one epoch, with equally many of each given label, as DivideMix uses it on Clothing1M.

Legend: N examples, M of them in the subset, P rows of a table, C channels or classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from scanmix.data.batches import AnyImages, TrainingData


@dataclass(frozen=True, eq=False)
class Subset:
    """Some of the images, by their positions; an image is copied only when it is used."""

    images: AnyImages
    index: Tensor
    """(M,) positions among the N images."""

    @property
    def shape(self) -> torch.Size:
        """(M, C, H, W)."""
        return torch.Size((len(self.index), *self.images.shape[1:]))

    def __len__(self) -> int:
        """Return M."""
        return len(self.index)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return images by their positions in the subset. Shape: (B,) -> (B, C, H, W)."""
        return self.images[self.index[index]]

    def split(self, size: int) -> Iterable[Tensor]:
        """Yield all images of the subset, `size` at a time. Shape: -> (B, C, H, W) each."""
        return (self.images[part] for part in self.index.split(size))


class Pool(NamedTuple):
    """The examples of one epoch."""

    data: TrainingData
    places: Tensor | None
    """(M,) positions among all examples; None if the pool is all of them."""

    def scatter(self, table: Tensor, count: int) -> Tensor:
        """Write a table of the pool into one of all N examples; the rest is NaN. Shape: (P, M) -> (P, N)."""
        if self.places is None:
            return table
        full = table.new_full((len(table), count), float("nan"))
        full[:, self.places] = table
        return full


def draw_pool(data: TrainingData, size: int | None, epoch: int) -> Pool:
    """Draw about `size` examples for an epoch, balanced by given label; all if `size` is None or not below N."""
    if size is None or size >= len(data):
        return Pool(data, None)
    index = balanced_draw(data.labels, data.num_classes, size, data.generator("pool", epoch, "draw"))
    drawn = dataclasses.replace(
        data, images=Subset(data.images, index), labels=data.labels[index], trusted=data.trusts(index)
    )
    return Pool(drawn, index)


def balanced_draw(labels: Tensor, num_classes: int, size: int, generator: Generator) -> Tensor:
    """Draw size // C examples (at least one) of each label without repetition, or all of a label that has fewer.

    The positions are sorted, so that pages of a file are read in order. Shape: (N,) int64 -> (M,) int64.
    """
    order = torch.randperm(len(labels), generator=generator, device=generator.device)
    by_label = order[labels[order].argsort(stable=True)]
    counts = labels.bincount(minlength=num_classes)
    place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[by_label]]
    return by_label[place < max(1, size // num_classes)].sort().values
