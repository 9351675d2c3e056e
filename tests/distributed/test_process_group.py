"""Several processes: what they agree on, where they come from, and what is left when one of them dies."""

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.config import UserError, install
from scanmix.data.batches import shard_rows
from scanmix.data.examples import Examples
from scanmix.distributed.process_group import (
    Processes,
    choose_processes,
    is_first,
    launched,
    limited_threads,
    process_group,
)
from scanmix.training import Run, open_run

pytest.importorskip("lightning_fabric")
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src"), "PYTHONWARNINGS": "default",
}  # fmt: skip
NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}
CHECKS = [
    "gradient_of_nt_xent", "gradient_of_scan", "gradient_of_uneven_batches", "running_statistics_of_split_batches",
    "sweeps_and_what_follows", "bytes_of_the_first", "weights_that_differ", "two_epochs_of_scanmix",
    "peers_in_parallel", "keys_of_both", "gradients_through_a_step", "methods_that_look_ahead",
]  # fmt: skip


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def went(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each check of `two_processes.py` went in each process."""
    folder, port = tmp_path_factory.mktemp("together"), free_port()
    script = HERE / "two_processes.py"
    both = [subprocess.Popen([sys.executable, script, str(rank), port, folder], env=ENVIRONMENT) for rank in (0, 1)]
    try:
        for one in both:
            one.wait(timeout=200)
    finally:
        for one in both:
            one.kill()
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("check", CHECKS)
def test_two_processes(check: str, rank: int, went: dict[str, str]) -> None:
    assert went.get(f"{check}.{rank}") == "ok", went.get(f"{check}.{rank}")


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 16, 17])
def test_rows_are_shared_evenly_and_none_is_left_out(count: int, world: int) -> None:
    batch = torch.arange(100, 100 + count)
    parts = [shard_rows(batch, rank, world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert set(torch.cat(parts).tolist()) == set(batch.tolist())
    assert len(parts[0]) >= min(count, 2) and len(parts[0]) <= max(-(-count // world), 2)
    side_by_side = torch.stack(parts, 1).flatten()
    assert torch.equal(side_by_side[:count], batch), "gathered rows stand as they stood"


@pytest.mark.parametrize(
    ("environment", "there", "first"),
    [
        ({}, None, True),
        ({"NODE_RANK": "1"}, None, False),
        ({"NODE_RANK": "0"}, None, True),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}, (4, 2), False),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0"}, None, True),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_PROCID": "0"}, (2, 3), True),
        ({"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_PROCID": "0"}, None, True),
    ],
)
def test_who_has_started_us(
    environment: dict[str, str], there: tuple[int, int] | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NODE_RANK", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == there and is_first(2) is first
    assert there is not None or is_first(None), "alone, whatever the environment says"
    chosen = choose_processes(None, None, Processes())
    assert (chosen.devices, chosen.nodes) == (there or (1, 1))
    if there is not None:
        with pytest.raises(UserError, match="leave --devices and --nodes out"):
            choose_processes(3, None, Processes())


def test_peers_are_two() -> None:
    with pytest.raises(UserError, match="for two processes, not 3"):
        choose_processes(3, None, Processes(parallel="peers"))


def test_one_process_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with process_group(Processes(), "cpu") as place:
        assert place == (0, 1, torch.device("cpu"))
    with pytest.raises(UserError, match=re.escape(install("multi"))), process_group(Processes(devices=2), "cpu", {}):
        pass


def noisy() -> tuple[Examples, Examples]:
    train_set, test_set = scanmix.load("digits", per_class=8, limit_test=40)
    assert test_set is not None
    return scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0), test_set


def train_tiny(folder: Path, devices: int, **more: Any) -> Run:
    (folder / "bare.toml").touch()
    examples, test = noisy()
    settings: dict[str, Any] = {"method": "dividemix", "epochs": 3, "batch_size": 16, "warmup": 1, **more}
    return scanmix.train(
        examples, test=test, out=folder / "run", recipe=str(folder / "bare.toml"), network=NETWORK, threads=1,
        cache=folder / "cache", devices=devices, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.long)])
def test_a_run_goes_on_with_another_number_of_processes(
    before: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("scanmix.training.epochs")
    real = module.save_checkpoint

    def stopped(folder: Path, identity: str, epoch: int, state: Any) -> None:
        real(folder, identity, epoch, state)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_checkpoint", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tmp_path, before, precision="bf16-mixed")
    stopped_run = open_run(tmp_path / "run")
    assert len(stopped_run.metrics) == 2 and not stopped_run.finished
    assert stopped_run.settings.processes == Processes(devices=before, precision="bf16-mixed")
    run = scanmix.resume(tmp_path / "run", devices=after, cache=tmp_path / "cache")
    assert run.finished and [line["epoch"] for line in run.metrics] == [1, 2, 3]
    assert run.predict_proba(noisy()[1]).shape == (40, 10), "the model is whole, and of one process"
    assert len(list((tmp_path / "run" / "trajectory").iterdir())) == 3


def test_examples_from_memory_reach_the_other_process(tmp_path: Path) -> None:
    examples, _ = noisy()
    own = Examples(examples.images, examples.labels, examples.class_names, examples.ids)
    run = scanmix.train(own, method="cross_entropy", epochs=1, batch_size=16, network=NETWORK, threads=1, devices=2)
    assert run.finished and run.folder is None and len(run.snapshots) == 1


def workers_of(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def is_running(pid: int) -> bool:
    """Neither gone nor waiting for somebody to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("victim", ["worker", pytest.param("first", marks=pytest.mark.long)])
def test_a_process_that_dies_ends_the_run_and_leaves_a_checkpoint(victim: str, tmp_path: Path) -> None:
    (tmp_path / "bare.toml").touch()
    command = [
        "-m", "scanmix", "train", "digits", "--per-class", "8", "--method", "dividemix", "--recipe", "bare.toml",
        "--set", "epochs=2000", "--set", "warmup=1", "--set", "batch_size=16", "--set", "network.widths=[4, 8]",
        "--set", "network.blocks=[1, 1]", "--devices", "2", "--threads", "1", "--out", "run",
    ]  # fmt: skip
    first = subprocess.Popen([sys.executable, *command], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE)
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        until = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
            assert time.monotonic() < until and first.poll() is None, "the training does not begin"
            time.sleep(0.1)
        (worker,) = workers_of(first.pid)
        os.kill(worker if victim == "worker" else first.pid, signal.SIGKILL)
        _, said = first.communicate(timeout=60)
    finally:
        first.kill()
    until = time.monotonic() + 30
    while is_running(worker):
        assert time.monotonic() < until, "an orphan is left"
        time.sleep(0.1)
    if victim == "worker":
        error = said.decode().splitlines()[-1]
        assert first.returncode == 2 and error.startswith("Error: dividemix stopped in epoch ")
        assert "process 1 was killed (SIGKILL)" in error and "`scanmix resume run` goes on" in error
    saved = torch.load(tmp_path / "run" / "checkpoint" / "last.pt", weights_only=True)
    assert saved["epoch"] >= 1


def test_nobody_waits_for_a_process_that_is_gone() -> None:
    """Where the others do not notice (this one sleeps), the run is ended for them."""
    code = (
        "import subprocess, time; from scanmix.training import launch; launch.GRACE = 0.2\n"
        "gone = subprocess.Popen(['sh', '-c', 'kill -9 $$'])\n"
        "with launch._noticed({3: gone}, lambda what: f'told: {what}'): time.sleep(100)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr == "Error: told: process 3 was killed (SIGKILL)\n"


SLURM = {
    "SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_LOCALID": "{rank}",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NODEID": "0", "SLURM_PROCID": "{rank}", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "train",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "options"), [(SLURM, []), ({"NODE_RANK": "{rank}"}, ["--nodes", "2"])], ids=["slurm", "by hand"]
)
def test_processes_that_somebody_else_starts(environment: dict[str, str], options: list[str], tmp_path: Path) -> None:
    (tmp_path / "bare.toml").touch()
    command = [
        sys.executable, "-m", "scanmix", "train", "digits", "--per-class", "8", "--method", "cross_entropy",
        "--recipe", "bare.toml", "--set", "epochs=2", "--set", "network.widths=[4]", "--set", "network.blocks=[1]",
        "--threads", "1", "--device", "cpu", "--out", "run", *options,
    ]  # fmt: skip
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            env={**ENVIRONMENT, **where, **{name: value.format(rank=rank) for name, value in environment.items()}},
        ) for rank in ("0", "1")
    ]  # fmt: skip
    try:
        said = [one.communicate(timeout=120)[0] for one in both]
    finally:
        for one in both:
            one.kill()
    assert [one.returncode for one in both] == [0, 0] and said[1] == ""
    assert open_run(tmp_path / "run").settings.processes.world == 2 and open_run(tmp_path / "run").finished


@pytest.mark.long
def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").touch()
    command = [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(),
        "-m", "scanmix", "train", "digits", "--per-class", "8", "--method", "cross_entropy", "--recipe", "bare.toml",
        "--set", "epochs=2", "--set", "network.widths=[4]", "--set", "network.blocks=[1]", "--threads", "1",
        "--device", "cpu", "--out", "run",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "run")
    assert run.finished and run.settings.processes.devices == 2
    assert done.stdout.count("Run folder: run. Next") == 1, "one of them speaks"


@pytest.mark.parametrize("number", [-1, 0, 1.5, "2", True, 10**30])
def test_a_number_of_processes_or_threads_that_is_none_is_told(number: Any) -> None:
    with pytest.raises(UserError, match="devices must be a whole number from 1 to 4096, not "):
        choose_processes(number, None, Processes())
    with pytest.raises(UserError, match="nodes must be a whole number from 1 to 4096, not "):
        choose_processes(None, number, Processes())
    with (
        pytest.raises(UserError, match="threads must be a whole number from 1 to 4096, not "),
        limited_threads(number, Processes()),
    ):
        pass


@pytest.mark.parametrize("world", [None, "x", ""])
def test_an_environment_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, world: str | None) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match="torchrun or srun began this, but not how"):
        launched()
