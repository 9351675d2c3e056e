"""The data as methods see it (`TrainingData`), and the batches in which they see it.

Legend: N examples, B batch, W processes, C channels or classes. A batch is a tensor of indices; views and labels are
looked up by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.config import epochs_in
from scanmix.data.views import AnyViews
from scanmix.data.views.sampling import View


class AnyImages(Protocol):
    """Images that may lie in a tensor, on the disk or on another device; a tensor of images is one of these."""

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Return images on the device that trains. Shape: (B,) -> (B, C, H, W)."""

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Return all images in order, `size` at a time. Shape: -> (B, C, H, W) each."""


@dataclass(frozen=True, eq=False)
class CountedImages:
    """Images that tell how many of them each batch has, so that it is seen how far an epoch is."""

    images: AnyImages
    read: Callable[[int], None]

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return self.images.shape

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return images. Shape: (B,) -> (B, C, H, W)."""
        found = self.images[index]
        self.read(len(found))
        return found

    def split(self, size: int) -> Iterable[Tensor]:
        """Yield all images, `size` at a time. Shape: -> (B, C, H, W) each."""
        for part in self.images.split(size):
            self.read(len(part))
            yield part


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images, given labels and views on one device. True labels are not in here, so that no method can use them."""

    images: AnyImages
    """(N, C, H, W) uint8, or (N, D, 1, 1) float32 for vectors."""
    labels: Tensor
    """(N,) int64, the given labels, which may be wrong."""
    num_classes: int
    views: AnyViews
    generator: Callable[[str, int, str], Generator]
    """(stage, epoch, purpose) -> a fresh generator for these draws."""
    trusted: Tensor | None = None
    """(N,) bool, the given labels that are known to be right; None if there are none."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def eval_view(self, index: Tensor | slice) -> Tensor:
        """Return eval views of these examples. Shape: (B,) -> (B, C, H, W)."""
        return self.views.eval_view(self.images[index])

    def sample_views(self, view: View, batches: Sequence[Tensor], draws: Generator) -> tuple[Tensor, ...]:
        """Return views of several batches, computed together for speed.

        Random draws are the same as if the batches came one after the other. Shape: (B,) -> (B, C, H, W) each.
        """
        sizes = [len(batch) for batch in batches]
        views: tuple[Tensor, ...] = view(self.images[torch.cat(list(batches))], draws, sizes).split(sizes)
        return views

    def trusts(self, index: Tensor) -> Tensor | None:
        """Return which given labels are known to be right. Shape: (B,) -> (B,) bool; None if there are none at all."""
        return None if self.trusted is None else self.trusted[index]

    @property
    def everything(self) -> Tensor:
        """Return the indices of all examples. Shape: (N,)."""
        return torch.arange(len(self), device=self.labels.device)

    def epochs_in(self, duration: int | str, batch_size: int, total: int) -> int:
        """Return the length of a `Duration` in epochs: its steps are batches, its percent are of `total` epochs."""
        return epochs_in(duration, len(self), batch_size, total)

    def generators(self, stage: str, epoch: int, *purposes: str) -> tuple[Generator, ...]:
        """Return one fresh generator for each purpose."""
        return tuple(self.generator(stage, epoch, purpose) for purpose in purposes)

    def fingerprint(self) -> str:
        """Return a hex SHA-256 of the images alone, for the cache keys of self-supervised results.

        Labels are left out: those results are shared by all label noise on the same images. `Examples.fingerprint`
        hashes the labels as well, to recognize the data of a run. The two hash the shape and pixels in different ways.
        Cached results and stored runs contain the values, so neither may change.
        """
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for chunk in self.images.split(4096):
            digest.update(chunk.cpu().numpy().tobytes())
        return digest.hexdigest()

    def one_hot(self, index: Tensor) -> Tensor:
        """Return given labels as one-hot rows. Shape: (B,) -> (B, C)."""
        return F.one_hot(self.labels[index], self.num_classes).float()


def labeled_views(
    data: TrainingData, view: View, labels: Tensor, size: int, stage: str, epoch: int, shard: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every example once, in random order: views of a batch, and its labels.

    Shape: labels (N,) -> (B, C, H, W), (B,) each.

    Args:
        data: the examples.
        view: which views are made.
        labels: labels of all examples.
        size: examples in a batch of all processes together.
        stage: name of the stage, of which order and views are drawn.
        epoch: epoch of the stage, of which they are drawn.
        shard: picks the rows of this process from a batch.
    """
    order, draws = data.generators(stage, epoch, "order", "views")
    for index in map(shard, batches(data.everything, size, order)):
        yield view(data.images[index], draws), labels[index]


def shard_rows(batch: Tensor, rank: int, world: int) -> Tensor:
    """Return the rows of one process: every `world`-th row from `rank` on.

    All processes get equally many rows, so that the mean of their means is the mean of the batch; rows from the start
    are used twice where the batch is too short for that. From a batch of two or more each process gets at least two
    rows, because batch norm cannot train on one. Shape: (B,) -> (B / W,), rounded up.
    """
    if world == 1 or len(batch) == 0:
        return batch
    count = max(-(-len(batch) // world), min(2, len(batch)))
    return batch[torch.arange(rank, count * world, world, device=batch.device) % len(batch)]


def batches(index: Tensor, size: int, generator: Generator, *, drop_last: bool = False) -> Iterator[Tensor]:
    """Yield `index` in random order, `size` at a time.

    A last batch of one example is merged into the one before, because batch norm cannot train on one image. With
    `drop_last` any short last batch is left out, unless it is the only one. Shape: (N,) -> (B,) each.
    """
    order = index[torch.randperm(len(index), generator=generator, device=generator.device)]
    chunks = list(order.split(size)) if len(order) else []
    if len(chunks) > 1 and len(chunks[-1]) < size and (drop_last or len(chunks[-1]) == 1):
        last = chunks.pop()
        if not drop_last:
            chunks[-1] = torch.cat([chunks[-1], last])
    yield from chunks


def paired(clean: Tensor, size: int, generator: Generator, minimum_steps: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of a labeled and an unlabeled batch: one pass over the clean set (an epoch of DivideMix).

    `clean` is a mask of the labeled examples; all others are unlabeled. The unlabeled set is reshuffled and starts
    again whenever it runs out; if it is empty, its batches are empty. The clean set is passed over again until there
    were at least `minimum_steps` pairs. Shape: (N,) bool -> (B,), (B,) each.
    """
    labeled_set, unlabeled_set = clean.nonzero().squeeze(1), (~clean).nonzero().squeeze(1)
    unlabeled = forever(unlabeled_set, size, generator)
    steps = 0
    while len(labeled_set):
        for labeled in batches(labeled_set, size, generator):
            yield labeled, next(unlabeled, unlabeled_set)
            steps += 1
        if steps >= minimum_steps:
            return


def forever(index: Tensor, size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield batches without end, each pass over `index` in a new order; nothing if it is empty.

    Shape: (N,) -> (B,) each.
    """
    while len(index):
        yield from batches(index, size, generator)
