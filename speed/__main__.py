"""`python -m speed [PART ...]`: measure all parts and write results/speed.md, or show some."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scanmix.config import UserError, unknown_name
from scanmix.progress import Bar, progress
from speed import epochs, growth, labels, lower_bounds, machine, mixture, neighbors, pictures, views
from speed.rows import Row, show, write

PARTS: dict[str, Callable[[Bar], list[Row]]] = {
    "epochs": epochs.rows,
    "lower-bounds": lower_bounds.rows,
    "views": views.rows,
    "neighbors": neighbors.rows,
    "mixture": mixture.rows,
    "labels": labels.rows,
    "pictures": pictures.rows,
    "growth": growth.rows,
}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(PARTS)}. All when none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the table goes; results/speed.md when all parts ran.")] = None,
) -> None:
    """Measure scanmix beside its baselines, in at most 25 minutes on two idle cores."""
    chosen = parts or list(PARTS)
    for name in chosen:
        if name not in PARTS:
            raise unknown_name("part", name, PARTS)
    path = out or (Path("results/speed.md") if not parts else None)
    about, began = machine.describe(), time.monotonic()
    measured = {}
    with progress("speed", len(chosen)) as bar:
        for name in chosen:
            bar.advance(0, note=name)
            measured[name] = PARTS[name](bar)
            bar.advance()
            if path is not None:  # what is measured is kept, whatever comes
                write(path, measured, about, (time.monotonic() - began) / 60)
    wide = None if sys.stdout.isatty() else 200
    Console(width=wide).print(show(measured))
    if path is not None:
        typer.echo(f"Written: {path} and {path.with_suffix('.csv')}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        sys.exit(f"Error: {error}")
