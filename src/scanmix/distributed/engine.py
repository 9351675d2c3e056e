"""The engine: the device, the processes, the averaging of gradients, and the source of all randomness.

Randomness is derived, not carried: each draw comes from a generator made from (seed, stage, epoch, purpose, rank).
Resuming, caching and the order of evaluation cannot change a draw, and a checkpoint needs no random state.

Methods and stages are written as for one process. Processes go through the same batches in the same order; each takes
its own rows (`shard`), draws its own views of them and computes the loss of all rows (`all_gather`); then gradients
are averaged. With batch statistics that are shared as well, this is the step that one process would take.
Legend: B batch, N rows in all, W processes.
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

Precision: TypeAlias = Literal["32-true", "tf32", "bf16-mixed"]
Parallel: TypeAlias = Literal["rows", "peers"]
BatchNorm: TypeAlias = Literal["synchronized", "split"]

LOCAL_DRAWS = ("views", "mixup")
"""Purposes of draws that differ between processes; all others (orders, neighbors) are the same in each.

They are drawn on the CPU and moved, as the host has to know some: how many images get an operation, the weight of a
mix. Asked of the device in every step, it would wait each time.
"""
BUCKET = 2**22
"""Numbers averaged in one message (16 MB of float32): many small messages are slow, a large one needs more memory."""


def _silent(stage: str, done: int, total: int, note: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Engine:
    """One of W processes, on one device: it makes generators, averages gradients and exchanges rows."""

    seed: int = 0
    device: torch.device = torch.device("cpu")
    rank: int = 0
    """Number of this process, 0..W - 1; process 0 writes files and prints."""
    world: int = 1
    """W. With one process no method below sends a message."""
    parallel: Parallel = "rows"
    """What processes share: the rows of each batch, or the two peers of a method."""
    precision: Precision = "32-true"
    """Arithmetic of the encoders."""
    compiled: bool = False
    """Whether encoders are compiled by `torch.compile`."""
    batch_norm: BatchNorm = "synchronized"
    """Whether batch statistics are those of all processes or of each."""
    cache: Path | None = None
    """Folder of self-supervised results; nothing is cached without one."""
    tick: StageTick = _silent
    """Called whenever a stage is one epoch further."""

    def generator(self, stage: str, epoch: int, purpose: str) -> Generator:
        """Return a new generator; equal names (stage, epoch, purpose) give equal draws on one kind of device.

        It is on the device, or on the CPU for `LOCAL_DRAWS`.
        """
        local = purpose in LOCAL_DRAWS
        device, rank = ("cpu", self.rank) if local else (self.device, 0)
        return Generator(device).manual_seed(derived_seed(self.seed, stage, str(epoch), purpose, str(rank)))

    def backward(self, loss: Tensor, network: nn.Module) -> None:
        """Compute the gradients of a scalar loss and average them over the processes.

        Running statistics of batch norm are averaged too, so that `network` stays equal in all processes.
        Shape: loss ().
        """
        torch.autograd.backward(loss)
        if self.world > 1:
            gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
            self._average([*gradients, *(buffer for buffer in network.buffers() if buffer.is_floating_point())])

    def shard(self, batch: Tensor) -> Tensor:
        """Return this process's rows of a batch of indices: all of them with one process.

        Shape: (B,) -> (B / W,), rounded up: where W does not divide B, some rows belong to two processes.
        """
        return shard_rows(batch, self.rank, self.world)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in the order of the batch: the inverse of `shard`.

        The gradient is right only for a loss that all processes compute alike from the result; it needs no message.
        Shape: (B, ...) -> (B x W, ...).
        """
        if self.world == 1:
            return rows
        whole: Tensor = _AllGather.apply(rows, self.rank, self.world)  # type: ignore[no-untyped-call]
        return whole

    def sharded_map(self, total: int, size: int, compute: Callable[[slice], Tensor]) -> Iterator[Tensor]:
        """Yield `compute(slice)` for consecutive slices of `total` rows, in order; the processes share the work.

        A slice has `size` rows for every W, so the results do not depend on W, not even in their last bits. With
        several processes, the results of W slices are yielded at once, in every process.
        Shape: slice of at most `size` -> (size, ...); yields (W x size, ...), fewer at the end.
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
        """Return the tensor of process 0 in every process: for results that different processors may round differently.

        Shape: (N, ...) -> (N, ...), equal in all processes.
        """
        if self.world > 1:
            tensor = tensor.contiguous()
            distributed.broadcast(tensor, 0)
        return tensor

    def broadcast_bytes(self, read: Callable[[], bytes], by: int = 0) -> bytes:
        """Call `read` in process `by` alone, and return its bytes in every process, which need not share a disk."""
        if self.world == 1:
            return read()
        content = read() if self.rank == by else b""
        size = torch.tensor(len(content), device=self.device)
        distributed.broadcast(size, by)
        if int(size) == 0:
            return b""
        buffer = torch.frombuffer(bytearray(content or int(size)), dtype=torch.uint8).to(self.device)
        distributed.broadcast(buffer, by)
        return buffer.cpu().numpy().tobytes()

    def check_equal(self, network: nn.Module) -> None:
        """Compare the weights of all processes by the sum of each tensor.

        Raises:
            UserError: they differ, so the processes no longer train one network.
        """
        if self.world == 1:
            return
        sums = torch.stack([weight.detach().double().sum() for weight in network.parameters()])
        if any(not torch.equal(other, sums) for other in _all_gather(sums, self.world)):
            raise UserError("the weights of the processes differ; give all of them one version of PyTorch, one device")

    def arithmetic(self) -> dict[str, str | int]:
        """Return the settings that change results by more than draws and rounding do; empty for the defaults.

        They are part of cache keys.
        """
        found: dict[str, str | int] = {} if self.precision == "32-true" else {"precision": self.precision}
        whole = self.world == 1 or (self.batch_norm == "synchronized" and self.parallel == "rows")
        return found if whole else {**found, "split": self.world}

    def _average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over the processes, in messages of about BUCKET numbers."""
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


class _AllGather(torch.autograd.Function):
    """Rows of all processes. Each computes the same loss, so it already has the gradient of the rows it contributed.

    `Engine.backward` averages over W processes what only one of them contributes: hence the factor W.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, world: int) -> Tensor:
        ctx.rank, ctx.world = rank, world
        return torch.stack(_all_gather(rows.detach(), world), 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.rank :: ctx.world] * ctx.world, None, None


def _all_gather(tensor: Tensor, world: int) -> list[Tensor]:
    """Return the tensors of all processes, which have one shape, in the order of their ranks."""
    gathered = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world)]
    distributed.all_gather(gathered, tensor.contiguous())
    return gathered


def derived_seed(seed: int, *names: str) -> int:
    """Return a seed of 63 bits that depends on `seed` and on every name (SHA-256)."""
    digest = hashlib.sha256("\x1f".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def device_name(device: str | torch.device) -> str:
    """Return the name of a device, which need not exist on this machine.

    Raises:
        UserError: `device` is neither a name nor a device.
    """
    check_type("device", device, (str, torch.device), "the name of one, such as 'auto', 'cpu' or 'cuda:1'")
    return str(device)


def find_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`; "auto" takes an accelerator when there is one that has float64.

    Raises:
        UserError: the device does not exist on this machine or has no float64, or `name` does not name one.
    """
    name = device_name(name)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None and not _has_float64(accelerator):  # Apple's: mixtures of losses could not be fitted
        accelerator = None
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, dtype=torch.float64, device=device)
        if device.type == "meta":
            raise ValueError("it holds shapes alone")
    except Exception as error:  # each kind of device raises errors of its own
        there = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
        raise UserError(f"device {name!r} cannot be used on this machine; choose one of: auto, {there}") from error
    return device


def _has_float64(device: torch.device) -> bool:
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except Exception:  # each kind of device raises errors of its own
        return False
    return True
