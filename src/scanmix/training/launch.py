"""The other processes of this machine: started for a run, watched, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import distributed

from scanmix.config import UserError, dump
from scanmix.data.examples import Examples
from scanmix.distributed.process_group import ProcessLost, RankInfo, launched, process_group
from scanmix.training import RunSettings

WORKER = "scanmix.training.worker"
"""Module that a worker runs. It imports the loop, which imports this file; so it is named and not imported."""
GRACE = 15.0
"""Seconds that the other processes have to notice a lost one; then they are ended."""

Workers = dict[int, "subprocess.Popen[bytes]"]
"""The processes that were started, by rank."""


@contextmanager
def launch(
    settings: RunSettings, examples: Examples, test: Examples | None, explain: Callable[[str], str]
) -> Iterator[RankInfo]:
    """Join the processes of a run while the block runs; start those of this machine that nobody has started.

    `explain` turns what happened to a process into a sentence for the user. What is yielded is the rank of this
    process, the number of all and the device.

    Raises:
        ProcessLost: another process ended; the others are ended as well.
        UserError: the processes cannot be started as asked.
    """
    wanted = settings.processes
    if wanted.world == 1 or launched() is not None:
        with _noticed({}, explain), process_group(wanted, settings.device) as place:
            yield place
        return
    if wanted.nodes > 1 and not {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UserError(
            f"--nodes {wanted.nodes} needs NODE_RANK, MASTER_ADDR and MASTER_PORT in the environment of each machine; "
            "or start it with torchrun or srun"
        )
    with tempfile.TemporaryDirectory(prefix="scanmix-", ignore_cleanup_errors=True) as folder:
        _write_job(Path(folder), settings, examples, test)
        where = {
            "NODE_RANK": os.environ.get("NODE_RANK", "0"),
            "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1") if wanted.nodes > 1 else "127.0.0.1",
            "MASTER_PORT": os.environ["MASTER_PORT"] if wanted.nodes > 1 else str(_free_port()),
        }
        first = int(where["NODE_RANK"]) * wanted.devices
        workers = {first + i: _start(Path(folder), first + i, {**where, "LOCAL_RANK": str(i)})
                   for i in range(1, wanted.devices)}  # fmt: skip
        try:
            with _noticed(workers, explain):
                with process_group(wanted, settings.device, {**where, "LOCAL_RANK": "0"}) as place:
                    yield place
                for worker in workers.values():
                    with suppress(subprocess.TimeoutExpired):
                        worker.wait(GRACE)
        finally:
            _end(workers)


def _start(folder: Path, rank: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own, so that Ctrl-C reaches only the first process."""
    found = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (folder / f"{rank}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER, str(folder)],
            env={**os.environ, **found, **environment}, stdin=subprocess.PIPE, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


@contextmanager
def _noticed(workers: Workers, explain: Callable[[str], str]) -> Iterator[None]:
    """Turn PyTorch's errors about sockets into a `ProcessLost` that names the process; never wait for a lost one."""
    over = threading.Event()
    if workers:
        threading.Thread(target=_watch, args=(workers, over, explain), daemon=True).start()
    try:
        yield
    except UserError:
        raise
    except RuntimeError as error:
        lost = _find_lost(workers, 5.0)
        if lost is None and not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise ProcessLost(explain(lost or "another process ended")) from error
    finally:
        over.set()


def _watch(workers: Workers, over: threading.Event, explain: Callable[[str], str]) -> None:
    """End this process if a worker was lost and this one still waits: devices that exchange tensors do not notice."""
    while not over.wait(0.5):
        if (lost := _find_lost(workers, 0.0)) and not over.wait(GRACE):
            print(f"Error: {explain(lost)}", file=sys.stderr, flush=True)
            _end(workers)
            os._exit(2)


def _find_lost(workers: Workers, patience: float) -> str | None:
    """Return a sentence on the worker that failed within so many seconds; None if none did."""
    until = time.monotonic() + patience
    while True:
        for rank, worker in workers.items():
            code = worker.poll()
            if code is not None and code < 0:
                return f"process {rank} was killed ({signal.Signals(-code).name})"
            if code:
                return f"process {rank} failed{_last_words(worker)}"
        if time.monotonic() > until:
            return None
        time.sleep(0.05)


def _last_words(worker: subprocess.Popen[bytes]) -> str:
    args: Any = worker.args
    folder = Path(args[-1])
    lines = [line for log in folder.glob("*.log") for line in log.read_text(errors="replace").splitlines() if line]
    return f": {lines[-1]}" if lines else ""


def _end(workers: Workers) -> None:
    for worker in workers.values():
        if worker.poll() is None:
            worker.kill()
        worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_job(folder: Path, settings: RunSettings, examples: Examples, test: Examples | None) -> None:
    """Write what the workers read: the settings, and the examples if these cannot be loaded again."""
    (folder / "settings.json").write_text(json.dumps(dump(settings)), encoding="utf-8")
    if settings.source is None:
        _write_examples(folder / "train", examples)
        if test is not None:
            _write_examples(folder / "test", test)


def _write_examples(path: Path, examples: Examples) -> None:
    """Write what a worker needs of examples: neither true labels nor names of images."""
    decided = {} if examples.decided is None else {"decided": examples.decided.contiguous()}
    about = {"class_names": examples.class_names, "name": examples.name, "flip": examples.flip}
    tensors = {"images": examples.images.contiguous(), "labels": examples.labels.contiguous(), **decided}
    save_file(tensors, path, metadata={"about": json.dumps(about)})
