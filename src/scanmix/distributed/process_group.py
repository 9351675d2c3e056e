"""How many processes compute a run, and the group they form.

Several processes need Lightning Fabric, from the extra `multi`, which connects them.
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import distributed

from scanmix.config import STRICT, Count, UserError, install, whole_number
from scanmix.distributed.engine import BatchNorm, Parallel, Precision, find_device

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others: more than any of them works without them (writing, fitting, loading)."""
MOST = 4096
"""Largest number of threads, devices or machines: more than exist, few enough not to exhaust a machine."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Processes:
    """Where and how a run is computed; a run may be resumed with other numbers."""

    devices: Count = 1
    """Processes on each machine, one for each device (on a CPU, as many as you like)."""
    nodes: Count = 1
    """Machines."""
    precision: Precision = "32-true"
    """`bf16-mixed`: encoders compute in bfloat16; weights, heads and losses stay float32. `tf32`: a GPU rounds what it
    multiplies to TF32, whose fractions have 10 bits of 23."""
    compiled: bool = False
    """Whether encoders are compiled by `torch.compile`."""
    batch_norm: BatchNorm = "synchronized"
    """Statistics of the whole batch, as one process would have them, or `split`: of each process's rows."""

    parallel: Parallel = "rows"
    """What processes share: the rows of every batch, or, being two, the two `peers` of a method."""

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.devices * self.nodes


class RankInfo(NamedTuple):
    """Which of the processes this is, and its device."""

    rank: int
    """0..world - 1."""
    world: int
    """Number of processes."""
    device: torch.device


class ProcessLost(UserError):
    """Another process ended before the run was finished."""


def launched() -> tuple[int, int] | None:
    """Return (devices, nodes) where torchrun or srun started several processes like this one, else None.

    Raises:
        UserError: the environment variables that they set are missing or cannot be read.
    """
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            world, devices = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        elif "SLURM_STEP_ID" in os.environ:  # set by srun, not by a batch script
            world, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
            devices = world // nodes
        else:
            return None
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"the environment says that torchrun or srun began this, but not how: {error!r}") from None
    return (devices, world // devices) if world > 1 else None


def is_first(nodes: int | None) -> bool:
    """Whether this is process 0, which writes files and prints; `nodes` is the number of machines asked for."""
    if launched() is None:
        return (nodes or 1) == 1 or int(os.environ.get("NODE_RANK", "0")) == 0
    return int(os.environ["RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID"]) == 0


def choose_processes(devices: int | None, nodes: int | None, how: Processes) -> Processes:
    """Return `how` with these numbers of devices and nodes; None means as many as were launched, else one.

    Raises:
        UserError: a number is not a whole number of at least 1; torchrun or SLURM launched other numbers; or more than
            two processes would share two peers.
    """
    devices = None if devices is None else whole_number("devices", devices, least=1, most=MOST)
    nodes = None if nodes is None else whole_number("nodes", nodes, least=1, most=MOST)
    running = launched()
    chosen = (devices or (running or (1, 1))[0], nodes or (running or (1, 1))[1])
    if running is not None and chosen != running:
        raise UserError(
            f"{chosen[0]} devices on {chosen[1]} nodes were asked for, but {running[0]} processes on each of "
            f"{running[1]} nodes were launched; leave --devices and --nodes out"
        )
    if how.parallel == "peers" and chosen[0] * chosen[1] > 2:
        raise UserError(f"--parallel peers is for two processes, not {chosen[0] * chosen[1]}: one for each network")
    return dataclasses.replace(how, devices=chosen[0], nodes=chosen[1])


@contextmanager
def process_group(
    processes: Processes, device: str, environment: Mapping[str, str] | None = None
) -> Iterator[RankInfo]:
    """Join the group of processes inside the block; with one process there is no group.

    `environment` says which process this is (LOCAL_RANK, NODE_RANK) and where the first listens (MASTER_ADDR,
    MASTER_PORT). Without it, torchrun or SLURM has set these variables.

    Raises:
        UserError: lightning-fabric is missing, or there are fewer devices than processes.
    """
    if processes.world == 1:
        yield RankInfo(0, 1, find_device(device))
        return
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise UserError(f"several processes need lightning-fabric: {install('multi')}") from None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with _environment(environment or {}):
        cluster = None if environment is None else LightningEnvironment()
        try:
            fabric = Fabric(
                accelerator=find_device(device).type, devices=processes.devices, num_nodes=processes.nodes,
                strategy=DDPStrategy(cluster_environment=cluster, timeout=PATIENCE),
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{processes.devices} devices of {device!r} cannot be used: {error}") from error
        fabric.launch()
        try:
            yield RankInfo(fabric.global_rank, fabric.world_size, fabric.device)
        finally:
            if cluster is None:  # a group of torchrun or SLURM serves the next training as well
                atexit.register(_leave)
            else:
                _leave()


def _leave() -> None:
    """Close the group. Gloo's threads free objects of Python, so they must end before Python does."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, and restore all after it, as Fabric reads and writes some."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let GPUs multiply float32 in TF32 inside the block with "tf32", and exactly with any other precision.

    PyTorch itself takes TF32 for convolutions and not for matrix products.
    """
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@contextmanager
def limited_threads(threads: int | None, processes: Processes) -> Iterator[None]:
    """Limit PyTorch to so many threads inside the block.

    By default the processes of a machine share the number that PyTorch chooses, as more threads than cores wait for
    each other.

    Raises:
        UserError: `threads` is not a whole number from 1 to 4096.
    """
    threads = None if threads is None else whole_number("threads", threads, least=1, most=MOST)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, before // processes.devices))
    try:
        yield
    finally:
        torch.set_num_threads(before)
