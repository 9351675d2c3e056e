"""ScanMix's fast recipes beside its default ones: accuracy, and seconds of the processor, over seeds.

Run `python -m results.fast`; the same line goes on where it was stopped. Each run is a process of its own, on one
thread. A row is in `results/fast.csv` as soon as it is known, and `results/fast.md` is written from that.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanmix.files import atomic_write
from scanmix.files.markdown import wrapped

DATA: dict[str, dict[str, Any]] = {"digits": {}, "fashion-mnist": {"per_class": 500, "limit_test": 2000}}
NOISES = (0.2, 0.5, 0.8, 0.9)
SEEDS = (0, 1, 2)
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "average": {"second_peer": "average"},
    "fast": {"recipe": "{data}/fast/scanmix"},
}
"""The shipped recipe; the same with the second peer as a running average; the fast recipe."""
FIELDS = ("data", "noise", "seed", "way", "last", "last10", "seconds")


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--data", choices=[*DATA], nargs="+", default=[*DATA])
    parser.add_argument("--here", metavar="JSON", help="one run in this process, given and returned as JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measure(**json.loads(asked.here))))
        return
    path = asked.out / "fast.csv"
    rows = read(path)
    with tempfile.TemporaryDirectory() as cache:
        for data in asked.data:
            for seed in SEEDS:
                for task in tasks(data, seed, rows):
                    row = task | _in_a_process(task, cache)
                    rows = [other for other in rows if not task.items() <= other.items()] + [row]
                    print(row, flush=True)
                    write(rows, path)


def tasks(data: str, seed: int, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs of a seed that have no row yet, the self-supervised stages first, since the others need them."""
    free = {"data": data, "noise": 0.0, "seed": seed, "way": "label-free"}
    wanted = [{"data": data, "noise": noise, "seed": seed, "way": way} for noise in NOISES for way in WAYS]
    known = [{name: row[name] for name in free} for row in rows]
    missing = [task for task in wanted if task not in known]
    return [free, *missing] if missing else []


def measure(data: str, noise: float, seed: int, way: str) -> dict[str, float]:
    """Train; return accuracies (0..1) after the last epoch and over the last ten, and processor seconds."""
    import torch

    import scanmix

    torch.set_num_threads(1)
    train, test = scanmix.load(data, seed=seed, **DATA[data])
    how = {name: value.format(data=data) for name, value in WAYS.get(way, {}).items()}
    examples = scanmix.add_noise(train, "symmetric", rate=noise, seed=seed)
    clock = time.process_time()
    run = scanmix.train(
        examples, test=test, method="scan" if way == "label-free" else "scanmix", seed=seed, device="cpu", threads=1,
        progress=False, **how,
    )  # fmt: skip
    seconds = time.process_time() - clock
    last, last10 = run.last_accuracy, run.last10_accuracy
    assert last is not None and last10 is not None
    return {"last": last, "last10": last10, "seconds": seconds}


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows that are known already."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    whole = {"seed": int, "data": str, "way": str}
    return [{name: whole.get(name, float)(row[name]) for name in FIELDS} for row in found]


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write both files, each whole or not at all."""
    lines = [",".join(FIELDS), *(",".join(_cell(row[name]) for name in FIELDS) for row in rows)]
    _write(path, "\n".join(lines) + "\n")
    _write(path.with_suffix(".md"), report(rows))


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Return the page: a table for each data set."""
    parts = [
        "# Fast recipes",
        wrapped(
            "`python -m results.fast` writes this page. It trains ScanMix by its default recipe, by the same recipe "
            'with `second_peer = "average"`, and by its fast recipe (`--recipe digits/fast/scanmix`). The tables have '
            "the accuracy after the last epoch in percent, and the CPU seconds on one thread. The numbers are mean ± "
            f"standard deviation over seeds {', '.join(map(str, SEEDS))}. The self-supervised stages are the same for "
            "all runs. Each run found them in the cache, and their seconds are given separately."
        ),
    ]
    for data in DATA:
        known = [row for row in rows if row["data"] == data]
        free = [row["seconds"] for row in known if row["way"] == "label-free"]
        if free:
            parts += [f"## {data}", f"Self-supervised stages: {_spread(free)} s.", _table(known)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| symmetric noise | way | seeds | accuracy | seconds | share of the default's |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for noise in NOISES:
        base = [row["seconds"] for row in rows if (row["noise"], row["way"]) == (noise, "default")]
        for way in WAYS:
            found = [row for row in rows if (row["noise"], row["way"]) == (noise, way)]
            if not found or not base:
                continue
            seconds = [row["seconds"] for row in found]
            ratio = statistics.fmean(seconds) / statistics.fmean(base)
            accuracy = _spread([100 * row["last"] for row in found])
            lines.append(f"| {noise:.0%} | {way} | {len(found)} | {accuracy} | {_spread(seconds)} | {ratio:.2f} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _write(path: Path, text: str) -> None:
    atomic_write(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _in_a_process(task: dict[str, Any], cache: str) -> dict[str, float]:
    command = [sys.executable, "-m", "results.fast", "--here", json.dumps(task)]
    # The self-supervised stages are computed once, and found in the cache by all others.
    places = {"OMP_NUM_THREADS": "1", "SCANMIX_CACHE": cache}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | places)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
