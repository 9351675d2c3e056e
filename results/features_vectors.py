"""Methods for frozen features on DINOv2 and CLIP vectors of CIFAR-10, with drawn noise and people's labels.

Run `python -m results.features_vectors --data FOLDER`; `results.real_data` says what lies in the folder. The same line
goes on where it was stopped. A row is in `results/features-vectors.csv` as soon as it is known, and
`results/features-vectors.md` is written from that.

Legend: N training and M test examples, C classes, D features.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scanmix
from results.real_data import Pool, pool
from results.rows import append_row, as_cell, read_rows
from scanmix.data.examples import Examples
from scanmix.data.noise import asymmetric, symmetric
from scanmix.data.readers.vectors import to_vectors
from scanmix.files import write_text

FEATURES = ("dino", "clip")
PEOPLE = ("random1", "worse")
NOISES = ("symmetric:0.2", "symmetric:0.5", "symmetric:0.8", "symmetric:0.9", "asymmetric:0.4", *PEOPLE)
METHODS = ("propagate", "linear", "neighbors", "wann", "ssr", "dividemix", "scanmix", "cross_entropy")
SEEDS = (0, 1, 2)
FIELDS = ("features", "noise", "method", "seed", "wrong", "accuracy", "best", "estimated", "seconds")
EXCHANGED = "asymmetric:0.4"
CLASSES = [str(i) for i in range(10)]
ABOUT = """Vectors of CIFAR-10's first 100 training pictures of each class and of 100 test pictures of each; labels as
drawn, or by people (`random1`, `worse` of CIFAR-10N). Test accuracy in percent after the last epoch, mean ± standard
deviation over three seeds (with people's labels the seed is that of the training), and
seconds of one processor core for training, audit and test, mean over all rows. By `python -m results.features_vectors`.
"""
GOALS = """Goals, for `propagate` on DINOv2: at least 96 % at every symmetric rate and on `worse`; the lowest mean is
{lowest:.1f}. The open goal was at least 90 % where 40 % of the labels are exchanged with a similar class, one way: it
has {exchanged}, the worst seed {least:.1f}. It needs the shares of the true classes, which lie between those of the
labels and even ones where the given labels are likeliest: one-way exchange makes the shares of the labels unequal. The
vote of neighbors, WANN and logistic regression do without and miss the goal for some draws."""
RECIPES = """Each method runs by its recipe for features of an encoder. These were chosen by other draws of noise (seeds
100 and 101); the head of the recipe `features/any/dividemix` says what was tried, and what it costs on small tables.
`cross_entropy` is the control and memorizes as on pictures: with a hundred times the weight decay, a linear network
or views that lose half of the features, too. Its best epoch is in the csv beside its last."""


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets of pictures")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--features", choices=FEATURES, nargs="+", default=FEATURES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.out / "features-vectors.csv"
    known = {tuple(row[name] for name in ("features", "noise", "method", "seed")) for row in read(path)}
    for seed, method, features in itertools.product(SEEDS, asked.methods, asked.features):
        source = pool(features, asked.data, None)
        test = np.load(asked.data / "features" / f"cifar10_{features}_test.npy").astype(np.float32)
        for noise in NOISES:
            if (features, noise, method, seed) not in known:
                add({**measure(source, test, noise, method, seed), "features": features}, path)
    write_text(path.with_suffix(".md"), page(read(path)))


def measure(source: Pool, test: np.ndarray, noise: str, method: str, seed: int) -> dict[str, Any]:
    """Train a method. Shape: vectors of the pool (N, D), test vectors (M, D) sorted by class."""
    assert source.vectors is not None
    truth, right = torch.from_numpy(source.labels), torch.arange(10).repeat_interleave(len(test) // 10)
    labels = given(source, truth, noise, seed)
    found = {"noise": noise, "method": method, "seed": seed, "wrong": float((labels != truth).float().mean())}
    clock = time.process_time()
    run = scanmix.train(
        examples(source.vectors, labels),
        test=examples(test, right),
        method=method,
        seed=seed,
        progress=False,
        threads=1,
    )
    seconds = time.process_time() - clock
    rate = run.audit().noise_rate.value
    curve = [line["accuracy"] for line in run.metrics]
    return {**found, "accuracy": curve[-1], "best": max(curve), "estimated": rate, "seconds": seconds}


def given(source: Pool, truth: Tensor, noise: str, seed: int) -> Tensor:
    """Return the given labels. Shape: (N,) -> (N,) int64."""
    if noise in source.given:
        return torch.from_numpy(source.given[noise])
    kind, _, rate = noise.partition(":")
    if kind == "asymmetric":
        return asymmetric(truth, float(rate), source.mapping, seed)
    return symmetric(truth, float(rate), source.classes, seed)


def examples(vectors: np.ndarray, labels: Tensor) -> Examples:
    """Return vectors with labels as examples. Shape: (N, D), (N,)."""
    return to_vectors(vectors, labels.tolist(), CLASSES, ids=[str(i) for i in range(len(vectors))], name="features")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows that are known already."""
    return [{**row, "seed": int(row["seed"])} for row in read_rows(path)]


def add(row: dict[str, Any], path: Path) -> None:
    """Append a row."""
    append_row(path, FIELDS, (as_cell(row[name]) for name in FIELDS))
    print(*(f"{row[name]:.4g}" if isinstance(row[name], float) else row[name] for name in FIELDS), flush=True)


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Frozen features: methods on vectors",
        "",
        *wrapped(ABOUT),
        "",
        *wrapped(goals(rows)),
        "",
        *wrapped(RECIPES),
    ]
    for features in dict.fromkeys(row["features"] for row in rows):
        lines += [
            "",
            f"## {features}",
            "",
            f"| method | {' | '.join(NOISES)} | seconds |",
            "|---" * (len(NOISES) + 2) + "|",
        ]
        for method in METHODS:
            mine = [row for row in rows if (row["features"], row["method"]) == (features, method)]
            if mine:
                cells = [cell(accuracies(rows, features, method, noise)) for noise in NOISES]
                spent = statistics.mean(float(row["seconds"]) for row in mine)
                lines.append(f"| {method} | {' | '.join(cells)} | {spent:.1f} |")
    return "\n".join(lines) + "\n"


def goals(rows: Sequence[dict[str, Any]]) -> str:
    """Return what was to be reached by `propagate` on vectors of DINOv2, and what is."""
    found = {noise: accuracies(rows, "dino", "propagate", noise) for noise in NOISES}
    if not all(found.values()):
        return ""
    wanted = [noise for noise in NOISES if noise.startswith("symmetric") or noise == "worse"]
    lowest = min(statistics.mean(found[noise]) for noise in wanted)
    return GOALS.format(lowest=100 * lowest, exchanged=cell(found[EXCHANGED]), least=100 * min(found[EXCHANGED]))


def accuracies(rows: Sequence[dict[str, Any]], features: str, method: str, noise: str) -> list[float]:
    """Return the accuracies of all seeds."""
    wanted = (features, method, noise)
    return [float(row["accuracy"]) for row in rows if (row["features"], row["method"], row["noise"]) == wanted]


def wrapped(text: str) -> list[str]:
    """Return a paragraph in lines."""
    return textwrap.wrap(text, 119)


def cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation in percent."""
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
