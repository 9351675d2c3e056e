"""A run killed by SIGKILL at any moment, and gone on with, ends with the bits of one that was never killed.

Run as a script this file is the victim: it forks a training that kills itself at the n-th event, an event being
the end of an optimizer step, a file about to be flushed, or a file just renamed into place.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

STAGES: dict[str, Any] = {
    "pretrain": {"epochs": 12, "batch_size": 40},
    "clustering": {"epochs": 12, "batch_size": 40},
    "num_neighbors": 4,
}
SMALL = {"epochs": 4, "batch_size": 16}
METHODS: dict[str, dict[str, Any]] = {
    "cross_entropy": SMALL,
    "mixup": SMALL,
    "dividemix": {**SMALL, "warmup": 2, "loss_memory": 2},
    "scan": STAGES,
    "scan_dividemix": {**STAGES, "dividemix": {**SMALL, "warmup": 2}},
    "scanmix": {**STAGES, **SMALL, "warmup": 2, "cluster_batch_size": 40, "severe_noise": 0.1},
}
NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}
CUTS = 4


def train_tiny(method: str, name: str, folder: Path) -> None:
    import scanmix

    train_set, test_set = scanmix.load("digits", per_class=8, limit_test=40)
    noisy = scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0)
    scanmix.train(
        noisy, test=test_set, method=method, out=folder / name, cache=folder / f"cache-{name}", network=NETWORK,
        threads=1, progress=False, **METHODS[method],
    )  # fmt: skip


def on_each_event(react: Callable[[str], None]) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd: Any) -> None:
        react("flush")
        real_fsync(fd)

    def replace(path: Path, target: Path) -> Path:
        moved = real_replace(path, target)
        react("rename")
        return moved

    register_optimizer_step_post_hook(lambda *_: react("step"))
    os.fsync = fsync
    Path.replace = replace  # type: ignore[assignment,method-assign]


def forked(work: Callable[[], object]) -> int:
    """Do the work in a process of its own; return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a training failed")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def kill_at(event: int) -> None:
    count = 0

    def react(_: str) -> None:
        nonlocal count
        if count == event:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    on_each_event(react)


def torment(method: str, folder: Path) -> None:
    """Train whole once; then for each chosen moment train, be killed there, resume."""
    # Imported before the forks: once, not forty times.
    for module in ("scanmix.train", "scipy.optimize", "sklearn.datasets", "sklearn.mixture", "torch._dynamo"):
        importlib.import_module(module)

    def whole() -> None:
        events: list[str] = []
        on_each_event(events.append)
        train_tiny(method, "whole", folder)
        (folder / "events.json").write_text(json.dumps(events))

    forked(whole)
    events = json.loads((folder / "events.json").read_text())
    for event in moments(events):
        name = f"cut-{event}-{events[event]}"

        if forked(partial(cut, method, name, folder, event)) != signal.SIGKILL:
            sys.exit(f"event {event} of {len(events)} did not come")
        forked(partial(go_on, method, name, folder))


def cut(method: str, name: str, folder: Path, event: int) -> None:
    kill_at(event)
    train_tiny(method, name, folder)


def go_on(method: str, name: str, folder: Path) -> None:
    import scanmix

    if (folder / name / "run.toml").exists():  # else it does not know what it was to be: call train again
        scanmix.resume(folder / name, cache=folder / f"cache-{name}", progress=False)
    else:
        train_tiny(method, name, folder)


def moments(events: list[str]) -> list[int]:
    """The first flush, steps and file operations spread over the run, and the last rename."""
    steps = [i for i, event in enumerate(events) if event == "step"] or [0]
    files = [i for i, event in enumerate(events) if event != "step"]
    spread = [kind[len(kind) * part // CUTS] for kind in (steps, files) for part in range(1, CUTS)]
    return sorted({0, *spread, files[-1]})


def without_seconds(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("seconds/")} for line in lines]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_with_the_bits_of_a_whole_one(method: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, __file__, method, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, cuts = tmp_path / "whole", sorted(tmp_path.glob("cut-*"))
    assert len(cuts) > CUTS
    for cut in cuts:
        assert without_seconds(cut / "metrics.jsonl") == without_seconds(whole / "metrics.jsonl"), cut.name
        for file in ("model/model.safetensors", "model/model.json", "labels.csv"):
            assert (cut / file).read_bytes() == (whole / file).read_bytes(), f"{cut.name}/{file}"
        assert not list(cut.rglob("*.part")), cut.name


if __name__ == "__main__":
    torment(sys.argv[1], Path(sys.argv[2]))
