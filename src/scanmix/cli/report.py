"""`scanmix report`: a finished run as one HTML page that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scanmix.cli.options import RunFolder
from scanmix.cli.shell import Written, begins_with, check_run, check_writable, say

REPORT = Written("a report of scanmix", begins_with("ScanMix report</title>"))


def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default RUN/report.html.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A second run, drawn into the same figures.")
    ] = None,
    epoch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Show the losses after this epoch; repeatable. By default four, from first to last."),
    ] = None,
) -> None:
    """Write what happened in a run as one HTML file.

    It holds its pictures and figures, needs no network, and can be sent to somebody.
    """
    for folder in [run, *([compare] if compare else [])]:
        check_run(folder)
    path = out or run / "report.html"
    check_writable(path, REPORT, run=None if out is None or out == run / path.name else run)
    from scanmix.report import write_report

    written = write_report(run, path, compare, epoch or ())
    say(f"Written: {written} ({written.stat().st_size / 1e6:.1f} MB). It opens in a browser, without a network.")
