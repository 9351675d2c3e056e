"""What every command shares: wrong input becomes one sentence and exit code 2, a warning becomes one line."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import typer
from typer.core import TyperGroup

from scanmix.config import Table, UserError, merge, parse_assignment
from scanmix.data.names import visible
from scanmix.progress import Bar, Lines, StageTick, progress

if TYPE_CHECKING:
    from scanmix.data.examples import Examples

MOST_LISTED = 100
"""Skipped files that are listed at most."""
RUN_FILES = frozenset(
    {
        "run.toml", "run.lock", "metrics.jsonl", "labels.csv", "labels.parquet", "audit.json", "report.html",
        "corrected.csv", "review-log.jsonl",
    }
)  # fmt: skip
RUN_FOLDERS = ("checkpoint", "model", "evidence", "trajectory")


class Written(NamedTuple):
    """A kind of file that a command writes: it may replace a file of this kind, and no other."""

    what: str
    """The kind in words: "a table of predictions"."""
    is_one: Callable[[Path], bool]
    """Whether an existing file is of this kind."""


class Commands(TyperGroup):
    """The group of all commands; a `UserError` is printed to stderr and ends the program with code 2."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            say("\nstopped", err=True)
            raise typer.Exit(130) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning, module=r"scanmix\b")
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as stop:  # its message says how to go on
                say(f"\n{str(stop) or 'stopped'}", err=True)
                raise typer.Exit(130) from None
            except UserError as error:
                sentence = str(error)
            except OSError as error:
                if error.errno == errno.EPIPE:  # typer ends quietly
                    raise
                sentence = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        say(f"Error: {sentence}", err=True)
        raise typer.Exit(2)


def say(text: object = "", err: bool = False) -> None:
    """Print to stdout or stderr. All text goes through here: control characters are made visible (`visible`)."""
    typer.echo(_fitting(visible(str(text)), sys.stderr if err else sys.stdout), err=err)


def _fitting(text: str, stream: TextIO) -> str:
    """Return a text in characters that a stream can encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


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
    """Print a warning to stderr."""
    say(f"Warning: {message}", err=True)


def watched(title: str) -> bool | Bar:
    """Return what progress is reported to: bars on a terminal, elsewhere a line of text from time to time."""
    return sys.stderr.isatty() or Lines(title, lambda line: say(line, err=True))


@contextmanager
def stage_bars() -> Iterator[StageTick]:
    """Yield what work in several stages reports to: it shows one bar at a time, on a terminal alone."""
    with ExitStack() as stack:
        shown: dict[str, Bar] = {}

        def tick(stage: str, done: int, total: int, note: str) -> None:
            if stage not in shown:
                stack.close()
                shown[stage] = stack.enter_context(progress(stage, total))
            shown[stage].set(done, total, note)

        yield tick


def settings_from(assignments: Sequence[str]) -> Table:
    """Join the values of repeated `--set a.b=value`; a later one wins.

    Raises:
        UserError: one of them has another form.
    """
    table: Table = {}
    for text in assignments:
        table = merge(table, parse_assignment(text))
    return table


def check_writable(
    path: Path, written: Written | None = None, inputs: Iterable[Path | str | None] = (), run: Path | None = None
) -> None:
    """Refuse a file that cannot be written or must not be replaced, before any work is done.

    Args:
        path: the file to write.
        written: its kind; an existing file of another kind is not replaced, unless it is empty.
        inputs: files that the command reads.
        run: folder of the run that is read; its own files are not replaced.

    Raises:
        UserError: `path` is a folder or a device, its folder does not exist, or it is another file.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path.absolute().parent}: no such folder; make it first or choose another --out")
    if run is not None and _is_of_run(path, run):
        raise UserError(f"{path} is a file of the run itself; choose another name")
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{path} is no file; choose another name")
    for read in inputs:
        if read is not None and os.path.exists(read) and os.path.samefile(path, read):
            raise UserError(f"{path} is read here and would be lost; choose another name")
    if written is not None and path.stat().st_size and not written.is_one(path):
        raise UserError(f"{path} is there and is not {written.what}; it would be lost: choose another name or move it")


def _is_of_run(path: Path, run: Path) -> bool:
    """Whether a path is that of a file of a run, existing or not."""
    full, folder = path.resolve(), run.resolve()
    return (full.parent == folder and full.name in RUN_FILES) or any(
        full.is_relative_to(folder / name) for name in RUN_FOLDERS
    )


def begins_with(*texts: str) -> Callable[[Path], bool]:
    """Return a test of files: whether all these texts are in the first 4,096 bytes."""

    def test(path: Path) -> bool:
        with path.open("rb") as file:
            head = file.read(4096)
        return all(text.encode() in head for text in texts)

    return test


def has_columns(*choices: Sequence[str]) -> Callable[[Path], bool]:
    """Return a test of files: whether it is a table, CSV or Parquet by its suffix, whose first columns are these."""

    def test(path: Path) -> bool:
        from scanmix.files.tables import columns_of

        columns = columns_of(path)
        return any(columns[: len(choice)] == list(choice) for choice in choices)

    return test


def check_run(folder: Path) -> None:
    """Refuse a folder that is neither a run nor an exported model.

    Raises:
        UserError: there is no such folder, or neither `run.toml` nor a model in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not any((folder / name).is_file() for name in ("run.toml", "model/model.json", "model.json", "model.onnx")):
        raise UserError(f"{folder} is no run folder: it has neither run.toml nor a model")


def show_skipped(lines: Sequence[str]) -> None:
    """List on stderr what was skipped, each line as "path: reason"."""
    for line in lines[:MOST_LISTED]:
        say(f"skipped {visible(line, allowed='')}", err=True)
    if len(lines) > MOST_LISTED:
        say(f"... and {len(lines) - MOST_LISTED} more", err=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> None:
    """Print a table to stdout; the first `text_columns` columns are aligned left, the others (numbers) right."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    say(title)
    table = RichTable()
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if place < text_columns else "right")
    for row in rows:
        # As Text, since brackets in a class name are no markup.
        table.add_row(*(Text(_fitting(visible(cell, allowed=""), sys.stdout)) for cell in row))
    # In a pipe or a file, tables are not squeezed to 80 columns.
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def shape_of(examples: Examples) -> str:
    """Return the shape of an example in words: "8x8, gray", or "512 features"."""
    height, width = examples.size
    image = f"{height}x{width}, {'gray' if examples.channels == 1 else 'color'}"
    return f"{examples.channels} features" if examples.kind == "vector" else image
