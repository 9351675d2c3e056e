"""How many processes compute a run, and the group they form. Lightning Fabric finds the others; it is an extra."""

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

from scanmix.config import STRICT, Count, UserError, whole_number
from scanmix.distributed.engine import BatchNorm, Parallel, Precision, find_device

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others: longer than any of them works alone (writing, fitting, loading)."""
MOST = 4096
"""Threads, devices and machines: beyond any there are, and less than brings a machine down."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Processes:
    """Where and how a run is computed; it may be resumed with other numbers."""

    devices: Count = 1
    """Processes on each machine, one for each device (on a CPU, as many as you like)."""
    nodes: Count = 1
    """Machines."""
    precision: Precision = "32-true"
    """`bf16-mixed`: encoders compute in bfloat16; weights, heads and losses stay float32."""
    batch_norm: BatchNorm = "synchronized"
    """Statistics of the whole batch, as one process would have them, or `split`: of each process's rows."""

    parallel: Parallel = "rows"
    """What processes share: the rows of every batch, or, being two, the two `peers` of a method."""

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.devices * self.nodes


class RankInfo(NamedTuple):
    """Which of how many processes this is, and on which device."""

    rank: int
    world: int
    device: torch.device


class ProcessLost(UserError):
    """Another process ended before its work was done."""


def launched() -> tuple[int, int] | None:
    """Return (devices, nodes) where torchrun or srun started several processes like this one, else None.

    Raises:
        UserError: what they say in the environment cannot be read.
    """
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            world, devices = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        elif "SLURM_STEP_ID" in os.environ:  # srun; a batch script alone has none
            world, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
            devices = world // nodes
        else:
            return None
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"the environment says that torchrun or srun began this, but not how: {error!r}") from None
    return (devices, world // devices) if world > 1 else None


def is_first(nodes: int | None) -> bool:
    """Whether this is the process that writes files and speaks to people; `nodes` are those asked for."""
    if launched() is None:
        return (nodes or 1) == 1 or int(os.environ.get("NODE_RANK", "0")) == 0
    return int(os.environ["RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID"]) == 0


def choose_processes(devices: int | None, nodes: int | None, how: Processes) -> Processes:
    """Return `how` with the numbers asked for; what was not is as many processes as were launched, else one.

    Raises:
        UserError: a number is none; another was asked for than torchrun or SLURM has launched, or than can share peers.
    """
    devices = None if devices is None else whole_number("devices", devices, least=1, most=MOST)
    nodes = None if nodes is None else whole_number("nodes", nodes, least=1, most=MOST)
    there = launched()
    found = (devices or (there or (1, 1))[0], nodes or (there or (1, 1))[1])
    if there is not None and found != there:
        raise UserError(
            f"{found[0]} devices on {found[1]} nodes were asked for, but {there[0]} processes on each of {there[1]} "
            "nodes were launched; leave --devices and --nodes out"
        )
    if how.parallel == "peers" and found[0] * found[1] > 2:
        raise UserError(f"--parallel peers is for two processes, not {found[0] * found[1]}: one for each network")
    return dataclasses.replace(how, devices=found[0], nodes=found[1])


@contextmanager
def process_group(
    processes: Processes, device: str, environment: Mapping[str, str] | None = None
) -> Iterator[RankInfo]:
    """Be one of the processes while the block runs; alone, where only one was asked for.

    `environment` says which (LOCAL_RANK, NODE_RANK) and where the first is (MASTER_ADDR, MASTER_PORT); without it,
    torchrun or SLURM has said so.

    Raises:
        UserError: lightning-fabric is missing, or there are not so many devices.
    """
    if processes.world == 1:
        yield RankInfo(0, 1, find_device(device))
        return
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise UserError("several processes need lightning-fabric: pip install 'scanmix[multi]'") from None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with _environment(environment or {}):
        own = None if environment is None else LightningEnvironment()
        try:
            fabric = Fabric(
                accelerator=find_device(device).type, devices=processes.devices, num_nodes=processes.nodes,
                strategy=DDPStrategy(cluster_environment=own, timeout=PATIENCE),
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{processes.devices} devices of {device!r} cannot be used: {error}") from error
        fabric.launch()
        try:
            yield RankInfo(fabric.global_rank, fabric.world_size, fabric.device)
        finally:
            if own is None:  # what torchrun and SLURM have opened serves the next training as well
                atexit.register(_leave)
            else:
                _leave()


def _leave() -> None:
    """Close the group: gloo's threads, which free what Python has made, must be gone before Python is."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Fabric reads and writes environment variables: set some inside, and leave none behind."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def limited_threads(threads: int | None, processes: Processes) -> Iterator[None]:
    """So many threads of PyTorch inside; by default its own choice, which the processes of a machine share.

    More threads than cores wait for each other.

    Raises:
        UserError: that is no number of threads.
    """
    threads = None if threads is None else whole_number("threads", threads, least=1, most=MOST)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, before // processes.devices))
    try:
        yield
    finally:
        torch.set_num_threads(before)
