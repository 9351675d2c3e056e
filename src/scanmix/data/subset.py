"""A part of the examples for one epoch, where all are too many: as many of each given label (DivideMix on Clothing1M).

Legend: N examples, M of them drawn, C classes.
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
    """Some of the images, by their places among all; none is copied before it is asked for."""

    images: AnyImages
    index: Tensor
    """(M,) places among the N images."""

    @property
    def shape(self) -> torch.Size:
        """(M, C, H, W)."""
        return torch.Size((len(self.index), *self.images.shape[1:]))

    def __len__(self) -> int:
        """Return M."""
        return len(self.index)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return some images. Shape: (B,) -> (B, C, H, W)."""
        return self.images[self.index[index]]

    def split(self, size: int) -> Iterable[Tensor]:
        """Yield all of them, so many at a time."""
        return (self.images[part] for part in self.index.split(size))


class Pool(NamedTuple):
    """What one epoch works on."""

    data: TrainingData
    places: Tensor | None
    """(M,) among all examples; None where the pool is all of them."""

    def scatter(self, table: Tensor, count: int) -> Tensor:
        """Put a table of the pool into one of all N examples; the others are no number. Shape: (P, M) -> (P, N)."""
        if self.places is None:
            return table
        full = table.new_full((len(table), count), float("nan"))
        full[:, self.places] = table
        return full


def draw_pool(data: TrainingData, size: int | None, epoch: int) -> Pool:
    """Return the examples of an epoch: about `size`, balanced by given label; all of them where there is no size."""
    if size is None or size >= len(data):
        return Pool(data, None)
    index = balanced_draw(data.labels, data.num_classes, size, data.generator("pool", epoch, "draw"))
    return Pool(dataclasses.replace(data, images=Subset(data.images, index), labels=data.labels[index]), index)


def balanced_draw(labels: Tensor, num_classes: int, size: int, generator: Generator) -> Tensor:
    """Draw size // C examples of each label, all of a label that has fewer; none twice.

    Shape: (N,) int64 -> (M,) int64, rising: pages of a file are then read in their order.
    """
    order = torch.randperm(len(labels), generator=generator, device=generator.device)
    by_label = order[labels[order].argsort(stable=True)]
    counts = labels.bincount(minlength=num_classes)
    place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[by_label]]
    return by_label[place < max(1, size // num_classes)].sort().values
