"""The metrics of a run: one line of JSON for each epoch, written before the checkpoint counts the epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scanmix.files import append_text, checked, reading, write_text

EpochMetrics = dict[str, Any]
"""One epoch in numbers, as one line of `metrics.jsonl`."""
FILE = "metrics.jsonl"


WHOLE = ("seconds/start", "seconds/epoch", "seconds/evaluate")
"""What the time of a run is made of; all other times are parts of an epoch."""
PROCESSOR = "seconds/processor"
"""What the first process has computed for the line, on all its threads: other programs do not lengthen it. Not on a
GPU, and not in runs of 0.1.0."""


def stage_seconds(lines: Iterable[EpochMetrics]) -> dict[str, float]:
    """Add up the times of all epochs, in seconds, by their keys ("seconds/start", "seconds/epoch" ...)."""
    totals: dict[str, float] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith("seconds/"):
                totals[key] = totals.get(key, 0.0) + float(value)
    return totals


def append_line(folder: Path, line: EpochMetrics) -> None:
    """Add an epoch; where that fails, the file is as it was.

    Raises:
        CannotWrite: as `append_text`.
    """
    append_text(folder / FILE, json.dumps(line) + "\n")


def write_lines(folder: Path, lines: Iterable[EpochMetrics]) -> None:
    """Replace all lines by these.

    Raises:
        CannotWrite: as `write_text`.
    """
    write_text(folder / FILE, "".join(json.dumps(line) + "\n" for line in lines))


def read_lines(folder: Path) -> list[EpochMetrics]:
    """Return all whole lines; a last line that a crash cut short is left out.

    Raises:
        UserError: a line is no JSON of numbers, has an infinite one, or is not of the epoch after the line before.
    """
    path = folder / FILE
    if not path.exists():
        return []
    lines: list[EpochMetrics] = []
    with reading(path, "bring it back, or train in another folder"):
        for number, text in enumerate(path.read_bytes().decode().rpartition("\n")[0].split("\n"), start=1):
            if not text:
                continue
            try:
                line = checked(dict[str, bool | int | float], text)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if line.get("epoch") != len(lines) + 1 or isinstance(line["epoch"], bool):
                raise ValueError(f"line {number} is of epoch {line.get('epoch')}, not {len(lines) + 1}")
            if any(isinstance(value, float) and math.isinf(value) for value in line.values()):
                raise ValueError(f"line {number} has an infinite number")
            lines.append(line)
    return lines
