"""What every command shares: bad input becomes one sentence and exit code 2, warnings become one line."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from typer.core import TyperGroup

from scanmix.config import Table, UserError, merge, parse_assignment
from scanmix.progress import Bar, Lines

if TYPE_CHECKING:
    from scanmix.data.examples import Examples

MOST_LISTED = 100
"""Files set aside that are listed one by one."""


class Commands(TyperGroup):
    """The commands; a `UserError` of any of them is printed to stderr and ends the program with code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning, module=r"scanmix\b")
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as stop:  # train says in it how to go on
                typer.echo(f"\n{stop or 'stopped'}", err=True)
                raise typer.Exit(130) from None
            except UserError as error:
                sentence = str(error)
            except OSError as error:
                if error.errno == errno.EPIPE:  # typer knows what to do
                    raise
                sentence = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"Error: {sentence}", err=True)
        raise typer.Exit(2)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    show_warning(str(message))


def show_warning(message: str) -> None:
    """Tell on stderr what is not as it should be, but can go on."""
    typer.echo(f"Warning: {message}", err=True)


def watched(title: str) -> bool | Bar:
    """What to report progress to: bars on a terminal, a line of text now and then elsewhere."""
    return sys.stderr.isatty() or Lines(title, lambda line: typer.echo(line, err=True))


def settings_from(assignments: Sequence[str]) -> Table:
    """Join the values of repeated `--set a.b=value`; a later one wins.

    Raises:
        UserError: one of them is not of this form.
    """
    table: Table = {}
    for text in assignments:
        table = merge(table, parse_assignment(text))
    return table


def check_writable(path: Path) -> None:
    """Refuse a file to write whose folder is not there, before any work is done.

    Raises:
        UserError: `path` is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path.absolute().parent}: no such folder; make it first or choose another --out")


def check_run(folder: Path) -> None:
    """Refuse a folder that is no run.

    Raises:
        UserError: there is no such folder, or neither `run.toml` nor a model in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not any((folder / name).is_file() for name in ("run.toml", "model/model.json", "model.json", "model.onnx")):
        raise UserError(f"{folder} is no run folder: it has neither run.toml nor a model")


def show_skipped(lines: Sequence[str]) -> None:
    """List on stderr what was set aside, each as "path: reason"."""
    for line in lines[:MOST_LISTED]:
        typer.echo(f"skipped {line}", err=True)
    if len(lines) > MOST_LISTED:
        typer.echo(f"... and {len(lines) - MOST_LISTED} more", err=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> None:
    """Print a table to stdout; the first `text_columns` are set left, the others (numbers) right."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    typer.echo(title)
    table = RichTable()
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if place < text_columns else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a class name are no markup
    # Into a pipe or a file, tables are not squeezed to 80 columns.
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def shape_of(examples: Examples) -> str:
    """Write what an example is like: "8x8, gray", or "512 features"."""
    height, width = examples.size
    image = f"{height}x{width}, {'gray' if examples.channels == 1 else 'color'}"
    return f"{examples.channels} features" if examples.kind == "vector" else image


def percent(share: float | None) -> str:
    """Write a share as `81.3 %`, and None as a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"
