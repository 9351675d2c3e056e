"""What comes after training: the audit and the report of a run on 50,000 made images."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np

import scanmix
from scanmix.audit import score_labels
from scanmix.data.examples import Examples
from scanmix.progress import Bar, progress
from scanmix.report import write_report
from speed.made import made_examples
from speed.rows import Row
from speed.timing import interleave, ready

COUNT, NUM_TEST = 50_000, 1000
EPOCHS = 5
"""Snapshots that audit and report read."""
REPEATS = 2


def rows(bar: Bar) -> list[Row]:
    """Train a small network, which is not timed; then time audit and report."""
    with tempfile.TemporaryDirectory() as kept, progress("labels", 1 + 3 * REPEATS, bar) as steps:
        folder = Path(kept)
        steps.advance(0, note="a run to look at")
        made_run(folder, COUNT, NUM_TEST)
        steps.advance()
        run = scanmix.open_run(folder / "run")
        examples, _ = scanmix.load("fashion-mnist", root=folder)
        evidence = run.evidence(examples)
        times = interleave(
            {
                "audit": ready(lambda: score_labels(evidence)),
                "forwards and audit": ready(lambda: run.audit(examples)),
                "report": ready(lambda: write_report(folder / "run")),
            },
            REPEATS,
            steps,
        )
    return [
        Row(f"audit of {COUNT:,} labels", times["audit"], note=f"one network, {EPOCHS} snapshots"),
        Row(f"the same with its forwards of {COUNT:,} images", times["forwards and audit"], note="28x28x1"),
        Row(f"report on {COUNT:,} labels", times["report"], note="reads images, audits, measures, draws"),
    ]


def made_run(folder: Path, count: int, num_test: int) -> None:
    """Write made images as IDX files, which a run can load again, and train a small network on them."""
    for prefix, seed, size in (("train", 0, count), ("t10k", 1, num_test)):
        write_idx(folder, prefix, made_examples(size, (1, 28, 28), seed))
    train, test = scanmix.load("fashion-mnist", root=folder)
    scanmix.train(
        train, test=test, method="cross_entropy", out=folder / "run", cache=folder / "cache", progress=False,
        epochs=EPOCHS, network={"widths": [8, 16], "blocks": [1, 1], "stem_stride": 4},
    )  # fmt: skip


def write_idx(folder: Path, prefix: str, examples: Examples) -> None:
    """Write images and labels in the format of MNIST."""
    pixels, labels = examples.images[:, 0].numpy(), examples.labels.numpy().astype(np.uint8)
    for name, values in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / name).write_bytes(header + values.tobytes())
