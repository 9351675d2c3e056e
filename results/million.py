"""ScanMix on a million made examples: processor seconds for each image, by stage, and the peak of memory.

Run `python -m results.million`, or with `--examples 50000 200000`. Each size runs in a process of its own, so that
its peak is its own; examples are read from a file page by page. Seconds are those of the processor, on one thread,
since other programs may run on the machine. A row is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = (50_000, 1_000_000)
CLASSES = 10
NOISE = 0.4
"""Share (0..1) of labels that are drawn at random."""
SETTINGS: dict[str, dict[str, Any]] = {
    "images": {
        "network": {"widths": (8, 16), "blocks": (1, 1)},
        "views": {"strong_operations": 1, "cutout": 2},
        "pretrain": {"epochs": 1, "projection_size": 32},
        "clustering": {"epochs": 1, "batch_size": 512},
    },
    "embeddings": {"network": {"hidden": (64,)}, "pretrain": {"epochs": 0}, "clustering": {"epochs": 0}},
}
SCANMIX: dict[str, Any] = {
    "epochs": 2, "warmup": 1, "warmup_part": "network", "warmup_view": "weak", "severe_view": "weak",
    "mild_warmup": 0, "learning_rate": 0.02, "warmup_rate": 0.02, "batch_size": 256, "cluster_batch_size": 512,
}  # fmt: skip
"""One epoch of warm-up and one of the main loop, in batches in which Python's share is small."""


def main() -> None:
    """Run what the command line asks for, one process for each kind and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kind", choices=[*SETTINGS], nargs="+", default=[*SETTINGS])
    parser.add_argument("--here", action="store_true", help="in this process, as JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.kind[0], asked.examples[0])))
        return
    for kind in asked.kind:
        rows: list[dict[str, Any]] = []
        for count in asked.examples:
            rows.append(_in_a_process(kind, count))
            print(_report(rows), flush=True)


def measure(kind: str, count: int) -> dict[str, Any]:
    """Train ScanMix on so many examples; return seconds by stage, in all, accuracy and peak memory in bytes."""
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pixels.npy"
        labels = make(kind, count, pixels)
        _time_stages(spent)
        clock, wall = time.process_time(), time.perf_counter()
        accuracy = _train(kind, pixels, labels, Path(folder))
        total, wall = time.process_time() - clock, time.perf_counter() - wall
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    spent["rest"] = total - sum(spent.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "kind": kind, "examples": count, "stages": spent, "seconds": total, "wall": wall, "accuracy": accuracy,
        "peak": peak, "disk": disk,
    }  # fmt: skip


def make(kind: str, count: int, path: Path) -> Any:
    """Write class patterns under noise to a `.npy`, part by part; return the right labels (N,) int64."""
    import numpy as np

    draws = np.random.default_rng(0)
    labels = draws.integers(CLASSES, size=count)
    shape, kind_of = ((1, 8, 8), np.uint8) if kind == "images" else ((64,), np.float32)
    sorts = 1 if kind == "images" else 8  # of each class
    patterns = draws.normal(size=(sorts * CLASSES, *shape))
    if kind == "images":  # of which a small network sees something: nothing is smaller than four pixels
        patterns = 2 * patterns[:, :, ::4, ::4].repeat(4, axis=2).repeat(4, axis=3)
    stored = np.lib.format.open_memmap(path, "w+", kind_of, (count, *shape))
    for start in range(0, count, 10_000):
        part = labels[start : start + 10_000]
        values = patterns[part + CLASSES * draws.integers(sorts, size=len(part))]
        values = values + 0.7 * draws.normal(size=values.shape)
        stored[start : start + len(part)] = (values * 40 + 128).clip(0, 255) if kind == "images" else values
    stored.flush()
    return labels


def _train(kind: str, pixels: Path, labels: Any, folder: Path) -> float:
    import numpy as np
    import torch

    import scanmix
    from scanmix.data.examples import Examples

    torch.set_num_threads(1)
    stored = torch.from_numpy(np.load(pixels, mmap_mode="c"))
    examples = Examples(
        images=stored if kind == "images" else stored[:, :, None, None],
        labels=torch.from_numpy(labels),
        class_names=tuple(f"class {c}" for c in range(CLASSES)),
        ids=tuple(f"made/{i}" for i in range(len(labels))),
        name="made",
        flip=False,
    )
    test = examples.select(range(1000))
    noisy = scanmix.add_noise(examples, "symmetric", rate=NOISE, seed=0)
    run = scanmix.train(
        noisy, test=test, method="scanmix", out=folder / "run", cache=folder / "cache", device="cpu", threads=1,
        progress=False, **SCANMIX, **SETTINGS[kind],
    )  # fmt: skip
    accuracy = run.last_accuracy
    assert accuracy is not None
    return accuracy


def _time_stages(spent: dict[str, float]) -> None:
    """Replace the functions of each stage by ones that add their processor seconds to `spent`."""
    method, stages, loop, run, table = (
        importlib.import_module(f"scanmix.{name}")
        for name in ("methods.scanmix", "pretrain.stages", "training.loop", "training.run", "audit.table")
    )
    for stage, place, name in (
        ("SimCLR", stages, "simclr"),
        ("neighbors", stages, "nearest_neighbors"),
        ("clustering", stages, "cluster"),
        ("warm-up", method.ScanMix, "_warm_up"),
        ("examine", method, "per_sample_losses"),
        ("mixture", method, "clean_probabilities"),
        ("learn", method.ScanMix, "_learn"),
        ("cluster", method.ScanMix, "_cluster"),
        ("snapshot", loop, "take_snapshot"),
        ("checkpoint", loop, "save_checkpoint"),
        ("audit", run.Run, "evidence"),
        ("audit", run, "score_labels"),
        ("labels.csv", table.Audit, "to_csv"),
    ):
        setattr(place, name, _counted(getattr(place, name), stage, spent))


def _counted(work: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(work)
    def timed(*args: Any, **more: Any) -> Any:
        clock = time.process_time()
        try:
            return work(*args, **more)
        finally:
            spent[stage] = spent.get(stage, 0.0) + time.process_time() - clock

    return timed


def _in_a_process(kind: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "results.million", "--here", "--kind", kind, "--examples", str(count)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _report(rows: list[dict[str, Any]]) -> str:
    """Return the last row as a table of microseconds for each example, beside those of the first."""
    first, last = rows[0], rows[-1]
    lines = [
        f"### {last['kind']}, {last['examples']:,} examples",
        "",
        "| stage | µs an example | ratio |",
        "|---|---|---|",
    ]
    for stage in [*last["stages"], "all"]:
        one, other = (
            1e6 * (row["seconds"] if stage == "all" else row["stages"].get(stage, 0.0)) / row["examples"]
            for row in (last, first)
        )
        lines.append(f"| {stage} | {one:.1f} | {one / other if other else 0:.2f} |")
    lines += [
        "",
        f"{last['seconds']:.0f} s of the processor, {last['wall']:.0f} s by the clock; "
        f"peak {last['peak'] / 1e6:.0f} MB ({last['peak'] / last['examples']:.0f} bytes an example); "
        f"on the disk {last['disk'] / 1e6:.0f} MB; accuracy {last['accuracy']:.1%}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
