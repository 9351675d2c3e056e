"""How time and memory of a ScanMix epoch grow with the number of images N. Each N has a process of its own.

`python -m speed.growth 4000` measures one N and prints JSON.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scanmix.progress import Bar, Quiet, progress
from speed.epochs import prepare, scanmix
from speed.made import SMALL
from speed.rows import Row
from speed.timing import Timing, interleave

COUNTS = (2000, 4000, 8000, 16000)
REPEATS = 2


def rows(bar: Bar) -> list[Row]:
    """Measure every N; fit seconds and memory by a power of N."""
    with progress("growth", len(COUNTS), bar) as steps:
        found = []
        for count in COUNTS:
            steps.advance(0, note=f"N = {count:,}")
            found.append(in_a_process(count))
            steps.advance()
    lines = [
        Row(
            f"ScanMix epoch, weak views, N = {one['count']:,}",
            Timing(tuple(one["wall"]), tuple(one["cpu"])),
            note=f"{1000 * min(one['wall']) / one['count']:.2f} ms an image; peak {one['peak'] / 2**20:,.0f} MiB, "
            f"of which {one['program'] / 2**20:,.0f} before the data",
        )
        for one in found
    ]
    seconds = exponent(COUNTS, [min(one["wall"]) for one in found])
    spent = exponent(COUNTS, [min(one["cpu"]) for one in found])
    memory = exponent(COUNTS, [one["peak"] - one["program"] for one in found])
    note = f"seconds ~ N^{seconds:.2f} (cpu N^{spent:.2f}), memory above the program ~ N^{memory:.2f}"
    return [*lines, Row("growth", note=note)]


def in_a_process(count: int) -> dict[str, Any]:
    """Measure one N in a fresh process: the peak of memory is that of a whole process."""
    root = Path(__file__).parents[1]
    paths = [str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "speed.growth", str(count)],
        cwd=root, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def measure(count: int) -> dict[str, Any]:
    """Time epochs on so many images; return seconds, and bytes before there were images and at the peak."""
    torch.ones(64, 64) @ torch.ones(64, 64)  # whatever PyTorch needs for itself
    program = peak_memory()
    setup, method = prepare(dataclasses.replace(SMALL, count=count)), scanmix("weak")
    states = iter([copy.deepcopy(setup.state) for _ in range(REPEATS)])

    def begin() -> Any:
        state = next(states)
        return lambda: method.epoch(state, setup.data, 0)

    timing = interleave({"epoch": begin}, REPEATS, Quiet())["epoch"]
    return {"count": count, "wall": timing.wall, "cpu": timing.cpu, "program": program, "peak": peak_memory()}


def peak_memory() -> int:
    """Return the most bytes this process has held."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:  # not Linux. On Linux `getrusage` would tell the parent's peak
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def exponent(counts: Sequence[int], values: Sequence[float]) -> float:
    """Return p of the power law value ~ count^p that fits best."""
    logs = [math.log(count) for count in counts], [math.log(value) for value in values]
    return statistics.linear_regression(*logs).slope


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
