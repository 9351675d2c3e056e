"""The noise model on a million made vectors: seconds and peak of memory, the search for neighbors counted apart.

Run `python -m results.noise_model_million`, or with `--examples 50000`. The search and the model each run in a process
of its own, so that each peak is its own. `results/noise-model-million.md` is written at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scanmix.files import write_text
from scanmix.files.markdown import wrapped

CLASSES, KINDS, SIZE = 10, 8, 128
"""Classes, patterns of each class, and numbers of each vector."""
NOISE, NEIGHBORS = 0.4, 10
SPREAD = 0.3
"""Standard deviation of the patterns, where that of the vectors around them is 0.7."""
GIGA, SECONDS = 6.0, 600.0
"""The most that was asked for, in gigabytes and seconds."""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--here", choices=["search", "model"], help="in this process, as JSON")
    parser.add_argument("--folder", type=Path, help="of the neighbors")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(asked.here, asked.examples, asked.threads, asked.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = [_in_a_process(part, asked.examples, asked.threads, folder) for part in ("search", "model")]
    text = page(asked.examples, asked.threads, *found)
    print(text)
    write_text(asked.out / "noise-model-million.md", text)


def measure(part: str, count: int, threads: int, folder: Path) -> dict[str, float]:
    """Search for neighbors and store them, or fit the noise model to those stored; return what it took."""
    import numpy as np
    import torch

    from scanmix.blocks.neighbors import nearest_neighbors
    from scanmix.blocks.noise_model import fit_neighbors
    from scanmix.data.noise import symmetric

    torch.set_num_threads(threads)
    truth = torch.from_numpy(np.random.default_rng(0).integers(CLASSES, size=count))
    vectors = torch.from_numpy(make(truth.numpy())) if part == "search" else torch.empty(0)
    clock, wall = time.process_time(), time.perf_counter()
    found: dict[str, float] = {}
    if part == "search":
        neighbors = nearest_neighbors(vectors, NEIGHBORS)
    else:
        labels = symmetric(truth, NOISE, CLASSES, 0)
        neighbors = torch.from_numpy(np.load(folder / "neighbors.npy"))
        clock, wall = time.process_time(), time.perf_counter()
        model = fit_neighbors(neighbors, labels, CLASSES, torch.Generator().manual_seed(0))
        right = labels == truth
        found = {
            "wrong": 1 - float(right.float().mean()), "estimated": model.rate.value, "low": model.rate.low,
            "high": model.rate.high, "brier": float((model.p_clean - right.float()).square().mean()),
            "after": float((model.posterior.argmax(1) == truth).float().mean()),
        }  # fmt: skip
    found |= {"seconds": time.process_time() - clock, "wall": time.perf_counter() - wall}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if part == "search":
        found["purity"] = float((truth[neighbors] == truth.unsqueeze(1)).float().mean())
        np.save(folder / "neighbors.npy", neighbors.numpy())
    return found


def make(classes: Any) -> Any:
    """Return vectors around one of the patterns of their class. Shape: (N,) -> (N, SIZE) float32."""
    import numpy as np

    draws = np.random.default_rng(1)
    patterns = SPREAD * draws.normal(size=(KINDS * CLASSES, SIZE)).astype(np.float32)
    found = 0.7 * draws.standard_normal((len(classes), SIZE), dtype=np.float32)
    found += patterns[classes + CLASSES * draws.integers(KINDS, size=len(classes))]
    return found


def page(count: int, threads: int, search: dict[str, float], model: dict[str, float]) -> str:
    """Return the page: a line for the search, one for the model."""
    how = (
        f"`python -m results.noise_model_million` writes this page: {count:,} made vectors of {SIZE} numbers, "
        f"{CLASSES} classes, {NOISE:.0%} of the labels drawn anew. The {NEIGHBORS} neighbors come from "
        f"`nearest_neighbors` (approximate above 200,000 vectors); {search['purity']:.0%} of them have the same class. "
        f"Both parts had {threads} threads. Other programs ran on the machine, so that the clock shows more than an "
        "idle one would need. Each peak is that of a process of its own, PyTorch included."
    )
    found = (
        f"{model['wrong']:.1%} of the labels are wrong. The model says {model['estimated']:.1%} ({model['low']:.1%} to "
        f"{model['high']:.1%}); its Brier score is {model['brier']:.3f}, and {model['after']:.1%} of its most probable "
        f"classes are right. The goal for the model was {SECONDS:.0f} s and {GIGA:g} GB."
    )
    lines = ["| | CPU seconds | seconds by the clock | peak of memory, GB |", "| --- | ---: | ---: | ---: |"]
    for name, part in (("search for neighbors", search), ("noise model", model)):
        lines.append(f"| {name} | {part['seconds']:.0f} | {part['wall']:.0f} | {part['peak'] / 1e9:.2f} |")
    parts = ["# The noise model on a million vectors", wrapped(how), "\n".join(lines), wrapped(found)]
    return "\n\n".join(parts) + "\n"


def _in_a_process(part: str, count: int, threads: int, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", "results.noise_model_million", "--here", part, "--examples", str(count)]
    command += ["--threads", str(threads), "--folder", folder]
    places = {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | places)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
