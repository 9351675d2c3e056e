"""Where the work is done: the device, the number of processes, gradients, and every source of randomness.

Randomness is derived, not carried: each draw comes from a generator made of (seed, stage, epoch, purpose,
rank). Resuming, caching and the order of evaluation cannot change a draw, and a checkpoint needs no random
state.

Nothing else knows of several processes. They walk the same batches in the same order, each takes its own rows
(`own`) and draws its own views of them, every loss is that of the gathered rows, and gradients are
averaged: with batch statistics shared as well, that is the step one process would make. Legend: W processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Generator, Tensor, distributed, nn

from scanmix.config import UserError, check_type
from scanmix.data.batches import shard_rows
from scanmix.progress import StageTick

Precision: TypeAlias = Literal["32-true", "bf16-mixed"]
Parallel: TypeAlias = Literal["rows", "peers"]
BatchNorm: TypeAlias = Literal["synchronized", "split"]

LOCAL_DRAWS = ("views", "mixup")
"""Purposes for which each process draws for itself; all others (orders, neighbors) must be the same everywhere."""
BUCKET = 2**22
"""Numbers averaged in one message (16 MB): many small ones are slow, one large one needs its size in memory."""


def _silent(stage: str, done: int, total: int, note: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Engine:
    """One of W processes on one device; what a stage asks when it needs a draw, a gradient or the others' rows."""

    seed: int = 0
    device: torch.device = torch.device("cpu")
    rank: int = 0
    """0 is the one that writes files and speaks to people."""
    world: int = 1
    """W. With one process every method below is what a program without processes would do."""
    parallel: Parallel = "rows"
    precision: Precision = "32-true"
    batch_norm: BatchNorm = "synchronized"
    cache: Path | None = None
    """Folder of label-free artifacts; nothing is kept without one."""
    tick: StageTick = _silent
    """Called whenever a stage is one epoch further."""

    def generator(self, stage: str, epoch: int, purpose: str) -> Generator:
        """Return a fresh generator on the device for one purpose in one epoch of one stage."""
        rank = self.rank if purpose in LOCAL_DRAWS else 0
        return Generator(self.device).manual_seed(derived_seed(self.seed, stage, str(epoch), purpose, str(rank)))

    def backward(self, loss: Tensor, network: nn.Module) -> None:
        """Compute gradients of a scalar loss and average them over the processes.

        Running statistics of batch norm go along, so that all of `network` stays the same everywhere.
        """
        torch.autograd.backward(loss)
        if self.world > 1:
            gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
            self._average([*gradients, *(buffer for buffer in network.buffers() if buffer.is_floating_point())])

    def shard(self, batch: Tensor) -> Tensor:
        """Return the rows of a batch of indices that are this process's; all of them when it is alone.

        Shape: (B,) -> (B / W,), rounded up: where B cannot be divided, some rows belong to two processes.
        """
        return shard_rows(batch, self.rank, self.world)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, all first rows before all second ones: this undoes `own`.

        Only for losses that every process computes alike: the gradient then needs no message.
        Shape: (B, ...) -> (B x W, ...).
        """
        if self.world == 1:
            return rows
        whole: Tensor = _Gathered.apply(rows, self.rank, self.world)  # type: ignore[no-untyped-call]
        return whole

    def sharded_map(self, total: int, size: int, compute: Callable[[slice], Tensor]) -> Iterator[Tensor]:
        """Yield `compute` of consecutive slices of `size`, in order; each is the work of one process, seen by all.

        What is computed on so many rows at once does not depend on W, so nor do its bits.
        """
        slices = [slice(start, start + size) for start in range(0, max(total, 1), size)]
        for first in range(0, len(slices), self.world):
            rows = compute(slices[min(first + self.rank, len(slices) - 1)])
            if self.world > 1:
                full = rows.new_zeros(min(size, total), *rows.shape[1:])
                full[: len(rows)] = rows
                rows = torch.cat(_all_gather(full, self.world))[: total - first * size]
            yield rows

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return what process 0 holds: for results that two kinds of processor may round apart."""
        if self.world > 1:
            tensor = tensor.contiguous()
            distributed.broadcast(tensor, 0)
        return tensor

    def broadcast_bytes(self, read: Callable[[], bytes], by: int = 0) -> bytes:
        """Let process `by` read something, and return its bytes everywhere: the others need not share its disk."""
        if self.world == 1:
            return read()
        content = read() if self.rank == by else b""
        size = torch.tensor(len(content), device=self.device)
        distributed.broadcast(size, by)
        if int(size) == 0:
            return b""
        here = torch.frombuffer(bytearray(content or int(size)), dtype=torch.uint8).to(self.device)
        distributed.broadcast(here, by)
        return here.cpu().numpy().tobytes()

    def check_equal(self, network: nn.Module) -> None:
        """Compare the weights of all processes by their sums.

        Raises:
            UserError: they differ, so the processes no longer train one network.
        """
        if self.world == 1:
            return
        sums = torch.stack([weight.detach().double().sum() for weight in network.parameters()])
        if any(not torch.equal(other, sums) for other in _all_gather(sums, self.world)):
            raise UserError("the weights of the processes differ; give all of them one version of PyTorch, one device")

    def arithmetic(self) -> dict[str, str | int]:
        """Return what changes results by more than draws and rounding; nothing where all is as usual."""
        found: dict[str, str | int] = {} if self.precision == "32-true" else {"precision": self.precision}
        whole = self.world == 1 or (self.batch_norm == "synchronized" and self.parallel == "rows")
        return found if whole else {**found, "split": self.world}

    def _average(self, tensors: list[Tensor]) -> None:
        """Put the mean over the processes in the place of each."""
        while tensors:
            count, numbers = 0, 0
            while count < len(tensors) and (count == 0 or numbers + tensors[count].numel() <= BUCKET):
                numbers += tensors[count].numel()
                count += 1
            bucket, tensors = tensors[:count], tensors[count:]
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(flat)
            flat /= self.world
            for tensor, mean in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(mean.view(tensor.shape))


SINGLE_PROCESS = Engine()
"""One process on the CPU."""


class _Gathered(torch.autograd.Function):
    """Rows of all processes; the loss is the same in each, so the gradient of the own rows is here already.

    Averaging over W processes divides by W what only one of them contributes: hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, world: int) -> Tensor:
        ctx.rank, ctx.world = rank, world
        return torch.stack(_all_gather(rows.detach(), world), 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.rank :: ctx.world] * ctx.world, None, None


def _all_gather(tensor: Tensor, world: int) -> list[Tensor]:
    found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world)]
    distributed.all_gather(found, tensor.contiguous())
    return found


def derived_seed(seed: int, *names: str) -> int:
    """Return 63 bits that depend on the seed and on every name."""
    digest = hashlib.sha256("\x1f".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def find_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes an accelerator when there is one.

    Raises:
        UserError: when the device does not exist on this machine, or `name` is no name.
    """
    check_type("device", name, (str, torch.device), "the name of one, such as 'auto', 'cpu' or 'cuda:1'")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise ValueError("it holds shapes alone")
    except Exception as error:  # each kind of device has errors of its own
        there = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
        raise UserError(f"device {str(name)!r} cannot be used on this machine; choose one of: auto, {there}") from error
    return device
