"""One line of the table, the table on the terminal, and the table in a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from scanmix.files import atomic_write
from speed.timing import Timing

HEADINGS = ("what", "scanmix", "baseline", "its seconds", "times as fast", "note")
ABOUT = """- **Seconds** are the fastest of the repeats. The percentage says how much longer the slowest repeat took.
- **Times as fast** is the fastest time of the baseline divided by the fastest time of scanmix. The brackets have the
  smallest and the largest ratio of the repeats, which alternated between the two. After `cpu` is the same ratio of CPU
  time. It is more reliable if other programs ran at the same time.
- **1.0** means as fast as the baseline, and less means slower. The baselines "operations at the best rate" and "each
  convolution alone" are lower bounds of the time.
- **The CSV** beside this page has the seconds of every repeat."""


@dataclass(frozen=True)
class Row:
    """What was measured, beside its baseline where there is one."""

    what: str
    ours: Timing | None = None
    baseline: str = ""
    theirs: Timing | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the baseline."""
        return self.theirs.best / self.ours.best if self.ours and self.theirs else None

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the table, under `HEADINGS`."""
        return (self.what, _seconds(self.ours), self.baseline, _seconds(self.theirs), _ratio(self), self.note)


Measured = Mapping[str, Sequence[Row]]
"""Part -> its rows."""


def show(measured: Measured) -> Table:
    """Return the table for the terminal."""
    table = Table(*HEADINGS, title="scanmix, measured", title_justify="left")
    for part, rows in measured.items():
        table.add_section()
        table.add_row(f"[bold]{part}[/bold]")
        for row in rows:
            table.add_row(*row.cells)
    return table


def write(path: Path, measured: Measured, machine: Mapping[str, str], minutes: float) -> None:
    """Write the table as Markdown to `path`, and every repeat to the `.csv` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda aside: aside.write_text(_markdown(measured, machine, minutes), encoding="utf-8"))
    atomic_write(path.with_suffix(".csv"), lambda aside: aside.write_text(_csv(measured), encoding="utf-8"))


def _markdown(measured: Measured, machine: Mapping[str, str], minutes: float) -> str:
    lines = ["# Speed", "", f"`make bench`, {minutes:.0f} minutes.", "", ABOUT, "", "| machine | |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in machine.items()]
    for part, rows in measured.items():
        lines += ["", f"## {part}", "", f"| {' | '.join(HEADINGS)} |", "| --- | ---: | --- | ---: | ---: | --- |"]
        lines += [f"| {' | '.join(row.cells)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _csv(measured: Measured) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("part", "what", "scanmix_wall", "scanmix_cpu", "baseline", "baseline_wall", "baseline_cpu", "ratio", "note")
    )
    for part, rows in measured.items():
        for row in rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.4f}"
            ours, theirs = _repeats(row.ours), _repeats(row.theirs)
            writer.writerow((part, row.what, *ours, row.baseline, *theirs, ratio, row.note))
    return text.getvalue()


def _repeats(timing: Timing | None) -> tuple[str, str]:
    if timing is None:
        return "", ""
    return _numbers(timing.wall), _numbers(timing.cpu)


def _numbers(values: Sequence[float]) -> str:
    return json.dumps([float(f"{value:.5g}") for value in values])


def _seconds(timing: Timing | None) -> str:
    if timing is None:
        return ""
    spread = f" +{timing.spread:.0%}" if len(timing.wall) > 1 else ""
    return f"{timing.best:.3g} s{spread}"


def _ratio(row: Row) -> str:
    if row.ratio is None or row.ours is None or row.theirs is None:
        return ""
    text = f"{row.ratio:.2f}"
    if len(row.theirs.wall) == len(row.ours.wall) > 1:
        each = [theirs / ours for ours, theirs in zip(row.ours.wall, row.theirs.wall, strict=True)]
        text += f" ({min(each):.2f} to {max(each):.2f})"
    if row.ours.cpu and row.theirs.cpu:
        text += f", cpu {min(row.theirs.cpu) / max(min(row.ours.cpu), 1e-9):.2f}"
    return text
