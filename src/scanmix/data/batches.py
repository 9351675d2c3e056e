"""What a method may see of the data, and the order in which it sees it.

Legend: N examples, B batch. A batch is a tensor of indices: views and labels are looked up by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.config import epochs_of
from scanmix.data.views import AnyViews
from scanmix.data.views.sampling import View


class AnyImages(Protocol):
    """Images as methods look at them: in a tensor, or anywhere else."""

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Return some images on the device that trains. Shape: (B,) -> (B, C, H, W)."""

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Return all images, so many at a time."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images, given labels and views on one device, and never a true label."""

    images: AnyImages
    """(N, C, H, W) uint8, or (N, D, 1, 1) float32 for vectors."""
    labels: Tensor
    """(N,) int64: given, not to be trusted."""
    num_classes: int
    views: AnyViews
    generator: Callable[[str, int, str], Generator]
    """(stage, epoch, purpose) -> the generator of those draws."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def eval_view(self, index: Tensor | slice) -> Tensor:
        """Return plain views of these examples. Shape: (B,) -> (B, C, H, W)."""
        return self.views.eval_view(self.images[index])

    def sample_views(self, view: View, batches: Sequence[Tensor], draws: Generator) -> tuple[Tensor, ...]:
        """Return a view of each of these batches, made at once and drawn in turn. Shape: (B,) -> (B, C, H, W) each."""
        sizes = [len(batch) for batch in batches]
        views: tuple[Tensor, ...] = view(self.images[torch.cat(list(batches))], draws, sizes).split(sizes)
        return views

    @property
    def everything(self) -> Tensor:
        """Return the indices of all examples. Shape: (N,)."""
        return torch.arange(len(self), device=self.labels.device)

    def epochs_in(self, duration: int | str, batch_size: int, total: int) -> int:
        """Return a duration in epochs, of `total`; a step of it is a batch."""
        return epochs_of(duration, -(-len(self) // batch_size), total)

    def generators(self, stage: str, epoch: int, *purposes: str) -> tuple[Generator, ...]:
        """Return one fresh generator for each purpose."""
        return tuple(self.generator(stage, epoch, purpose) for purpose in purposes)

    def fingerprint(self) -> str:
        """Return a hash of the images alone: what label-free results depend on."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for chunk in self.images.split(4096):
            digest.update(chunk.cpu().numpy().tobytes())
        return digest.hexdigest()

    def one_hot(self, index: Tensor) -> Tensor:
        """Return given labels as rows of zeros and a one. Shape: (B,) -> (B, C)."""
        return F.one_hot(self.labels[index], self.num_classes).float()


def labeled_views(
    data: TrainingData, view: View, labels: Tensor, size: int, stage: str, epoch: int, own: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every example once, in random order: views of a batch, and its labels.

    `own` picks the rows of a process; order and views are drawn for a stage and epoch.
    Shape: labels (N,) -> (B, C, H, W), (B,) each.
    """
    order, draws = data.generators(stage, epoch, "order", "views")
    for index in map(own, batches(data.everything, size, order)):
        yield view(data.images[index], draws), labels[index]


def shard_rows(batch: Tensor, rank: int, world: int) -> Tensor:
    """Return every `world`-th row from `rank` on, and from the start again until all processes have equally many.

    At least two of two or more, for batch norm cannot learn from one. Equal counts make the mean of the
    processes' means the mean of all. Shape: (B,) -> (B / W,), rounded up.
    """
    if world == 1 or len(batch) == 0:
        return batch
    count = max(-(-len(batch) // world), min(2, len(batch)))
    return batch[torch.arange(rank, count * world, world, device=batch.device) % len(batch)]


def batches(index: Tensor, size: int, generator: Generator, *, drop_last: bool = False) -> Iterator[Tensor]:
    """Yield `index` in random order, `size` at a time.

    A last batch of one is merged into the one before (batch norm cannot learn from one image). With
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
    """Yield labeled and unlabeled batches side by side: one pass over the clean set (DivideMix's epoch).

    `clean` is a mask. The noisy set starts again, reshuffled, whenever it runs out; when it is empty its
    batches are empty. When a pass has fewer than `minimum_steps` batches the clean set is passed over again.
    Shape: (N,) bool -> (B,), (B,) each.
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
    """Yield batches of passes over `index`, each in an order of its own, without end; nothing where it is empty."""
    while len(index):
        yield from batches(index, size, generator)
