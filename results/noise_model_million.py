"""The noise model on a million examples: seconds and peak of memory, without the search for neighbors.

Run `python -m results.noise_model_million`, or with `--examples 50000`. Neighbors and principal components are made:
the model sees them and labels alone. It runs in a process of its own, so that the peak
is its own. `results/noise-model-million.md` is written at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scanmix.files import write_text
from scanmix.files.markdown import wrapped

CLASSES, NOISE, NEIGHBORS = 10, 0.4, 10
NEAR, ASTRAY = 30, 0.2
"""Neighbors are drawn among so many places on either side in an order by class; this share of them anywhere."""
COMPONENTS, APART = 128, 2.0
"""Principal components, and standard deviations by which the first ones of each class stand out."""
GIGA, SECONDS = 6.0, 600.0
"""The most that was asked for, in gigabytes and seconds."""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--here", action="store_true", help="in this process, as JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.examples, asked.threads)))
        return
    text = page(asked.examples, asked.threads, _in_a_process(asked.examples, asked.threads))
    print(text)
    write_text(asked.out / "noise-model-million.md", text)


def measure(count: int, threads: int) -> dict[str, float]:
    """Fit the noise model to made neighbors and labels; return what it found and what it took."""
    import numpy as np
    import torch

    from scanmix.blocks.noise_model import fit_neighbors
    from scanmix.data.noise import symmetric

    torch.set_num_threads(threads)
    truth = torch.from_numpy(np.random.default_rng(0).integers(CLASSES, size=count))
    labels, neighbors = symmetric(truth, NOISE, CLASSES, 0), torch.from_numpy(make(truth.numpy()))
    draws = torch.Generator().manual_seed(0)
    components = torch.randn(count, COMPONENTS, generator=draws)
    components[torch.arange(count), truth] += APART
    clock, wall = time.process_time(), time.perf_counter()
    model = fit_neighbors(neighbors, labels, CLASSES, draws, components=components)
    seconds, wall = time.process_time() - clock, time.perf_counter() - wall
    right = labels == truth
    return {
        "purity": float((truth[neighbors] == truth.unsqueeze(1)).float().mean()),
        "wrong": 1 - float(right.float().mean()), "estimated": model.rate.value, "low": model.rate.low,
        "high": model.rate.high,
        "brier": float((model.p_clean - right.float()).square().mean()),
        "after": float((model.posterior.argmax(1) == truth).float().mean()), "seconds": seconds, "wall": wall,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }  # fmt: skip


def make(classes: Any) -> Any:
    """Return neighbors that lie near in an order by class, and some that lie anywhere. Shape: (N,) -> (N, NEIGHBORS).

    Examples of a class are in random order, so that neighbors are far apart in memory, as those of pictures are.
    """
    import numpy as np

    draws, count = np.random.default_rng(1), len(classes)
    order = np.lexsort((draws.random(count), classes))
    place = np.empty_like(order)
    place[order] = np.arange(count)
    found = np.empty((count, NEIGHBORS), dtype=np.int64)
    for column in range(NEIGHBORS):
        steps = draws.integers(1, NEAR + 1, size=count) * draws.choice([-1, 1], size=count)
        steps = np.where(draws.random(count) < ASTRAY, draws.integers(count, size=count), steps)
        found[:, column] = order[(place + steps) % count]
    return found


def page(count: int, threads: int, found: dict[str, float]) -> str:
    """Return the page."""
    how = (
        f"`python -m results.noise_model_million` writes this page: {count:,} examples of {CLASSES} classes, "
        f"{NOISE:.0%} of the labels drawn anew. Their {NEIGHBORS} neighbors are made, not searched for "
        f"([million.md](million.md) has the seconds of a search); {found['purity']:.0%} of them have the same class. "
        f"So are {COMPONENTS} principal components, of which {CLASSES} tell the classes. The model had {threads} "
        "threads. Other programs ran on the machine, so the clock shows more than an idle one would need. The peak is "
        "that of the whole process: PyTorch, neighbors, components and what makes them included."
    )
    took = (
        f"It took {found['seconds']:.0f} s of the processor, {found['wall']:.0f} s by the clock, and at most "
        f"{found['peak'] / 1e9:.2f} GB. The goal was {SECONDS:.0f} s and {GIGA:g} GB."
    )
    says = (
        f"{found['wrong']:.1%} of the labels are wrong. The model says {found['estimated']:.1%} ({found['low']:.1%} to "
        f"{found['high']:.1%}); its Brier score is {found['brier']:.3f}, and {found['after']:.1%} of its most probable "
        "classes are right."
    )
    return "\n\n".join(["# The noise model on a million examples", *map(wrapped, (how, took, says))]) + "\n"


def _in_a_process(count: int, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "results.noise_model_million", "--here", "--examples", str(count)]
    command += ["--threads", str(threads)]
    places = {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | places)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
