"""`scanmix review`: check doubtful labels on a local page, or in another tool, and decide which are right."""

from __future__ import annotations

import os
import re
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scanmix.cli.options import RunFolder
from scanmix.cli.shell import Written, begins_with, check_run, check_writable, say
from scanmix.config import UserError, as_typed

if TYPE_CHECKING:
    from scanmix.review import Review
    from scanmix.training import Run

Order = Literal["worst", "random", "informative"]
PAGE = Written("a page of scanmix review", begins_with("<title>Review</title>"))
TASKS = Written("a file of scanmix review --to", lambda path: b"scanmix" in path.read_bytes())
SETUPS = {".json": "-labels.xml", ".xml": "-labels.json"}
"""Suffix of the tasks for Label Studio and CVAT -> end of the name of the file with the classes."""


def review(
    run: RunFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; by default any that is free.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to answer at; 0.0.0.0 is any: other machines reach the page, too.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    who: Annotated[str | None, typer.Option(help="Name for the log of changes; by default yours here.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Ask labels once more that were decided before this run; they come first.")
    ] = False,
    order: Annotated[
        Order, typer.Option(help="What comes first: the worst, or what is drawn to find the share of wrong labels.")
    ] = "worst",
    static: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one read-only HTML file of the worst labels instead.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the labels to ask as tasks: .json for Label Studio, .xml for CVAT."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take over what was decided there: its export, .json, .xml, .zip."),
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="What stands before the name of an image there, for --to.")] = None,
) -> None:
    """Look at the labels of a finished run, worst first, and decide which are right.

    To learn how many labels are wrong, ask in random order, or in the informative one, which needs fewer decisions.
    Labels that were decided before the run (`train --labels`) are not asked again. Decisions are saved in the run
    folder one by one; image files and the labels you gave are never changed. With --to and --from, people decide in
    Label Studio or CVAT.
    """
    check_run(run)
    _check_files(run, static, to, from_, order, prefix)
    from scanmix.training import open_run

    name = who or os.environ.get("USER") or os.environ.get("USERNAME") or "unknown"
    opened = open_run(run)
    if opened.model.kind == "vector":
        raise UserError(f"{run} learned from vectors: there is nothing to look at; see {run / 'labels.csv'}")
    if static is not None:
        from scanmix.review import write_static

        count = write_static(_review_of(opened, run, name, again), static)
        say(f"{static}: the {count} most doubtful labels, to be looked at without this program")
    elif to is not None:
        _write_tasks(_review_of(opened, run, name, again, order), run, to, prefix)
    elif from_ is not None:
        _take_answers(opened, run, name, from_)
    else:
        _serve(opened, run, name, again, order, (host, port), browser)


def _check_files(
    run: Path, static: Path | None, to: Path | None, answers: Path | None, order: Order, prefix: str | None
) -> None:
    """Refuse options that do not go together, and files that cannot be written or read, before any work is done."""
    if sum(path is not None for path in (static, to, answers)) > 1:
        raise UserError("--static, --to and --from are three things to do; give one of them")
    if static is not None and order != "worst":
        raise UserError("--static shows the worst labels; leave out --order")
    if prefix is not None and to is None:
        raise UserError("--prefix belongs to --to; leave it out")
    if static is not None:
        check_writable(static, PAGE, run=run)
    if to is not None:
        if to.suffix.lower() not in SETUPS:
            raise UserError(f"{to} must end in .json for Label Studio, or in .xml for CVAT")
        check_writable(to, TASKS, run=run)
        check_writable(_setup(to), TASKS, run=run)
    if answers is not None and answers.suffix.lower() not in (*SETUPS, ".zip"):
        raise UserError(f"{answers} must be .json of Label Studio, or .xml or .zip of CVAT")
    if answers is not None and not answers.is_file():
        raise UserError(f"{answers}: no such file")


def _setup(to: Path) -> Path:
    """Return the file with the classes, beside the file of the tasks."""
    return to.with_name(to.stem + SETUPS[to.suffix.lower()])


def _write_tasks(page: Review, run: Path, to: Path, prefix: str | None) -> None:
    """Write tasks for another tool, and say what to do with the two files."""
    from scanmix.review.exchange import write_tasks

    count, setup = write_tasks(page, to, _setup(to), prefix), _setup(to)
    tool, export = ("Label Studio", "EXPORT.json") if to.suffix.lower() == ".json" else ("CVAT", "EXPORT.zip")
    say(f"{to}: {count} labels to decide in {tool}; {setup}: its setup, with the classes")
    say(f"Next, with the export: scanmix review {as_typed([str(run)])} --from {export}")


def _take_answers(opened: Run, run: Path, who: str, answers: Path) -> None:
    """Take over the export of another tool as decisions of the review."""
    from scanmix.files import locked
    from scanmix.review import LOCK
    from scanmix.review.exchange import take_answers

    with locked(run, "under review", LOCK, str(answers), "stop it first"):
        page = _review_of(opened, run, who, again=False)
        page.decisions.recover()
        taken = take_answers(page, answers)
    say(f"{answers}: {taken.new} labels decided, {taken.changed} decided anew, {taken.same} as they were already")
    _show_end(page)
    _show_next(opened, run, page)


def _serve(opened: Run, run: Path, name: str, again: bool, order: Order, place: tuple[str, int], browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    from scanmix.files import locked
    from scanmix.review import LOCK, serve
    from scanmix.review.server import EVERYWHERE, listen

    host, port = place
    socket, token, url = listen(port, host)
    with socket, locked(run, "under review", LOCK, url, "use that page or stop it first"):
        page = _review_of(opened, run, name, again, order)
        page.decisions.recover()
        _show_start(run, url, everywhere=socket.getsockname()[0] == EVERYWHERE)
        if browser:
            webbrowser.open(url)
        try:
            serve(page, socket, token)
        except KeyboardInterrupt:
            say()
    _show_end(page)
    _show_next(opened, run, page)


def _show_next(opened: Run, run: Path, page: Review) -> None:
    """Print the line that trains on the decisions, if there are any."""
    from scanmix.review import CORRECTED

    if (page.decisions.codes > 0).any():
        encoder = opened.settings.features
        words = ["--labels", str(run / CORRECTED), *_new_folder(opened, run)]
        words += [] if encoder is None or encoder.is_function else ["--features", encoder.name]
        say(f"Next: scanmix train {_data_of(opened)} {as_typed(words)}")


def _show_start(run: Path, url: str, everywhere: bool) -> None:
    say(f"Review of {run}: {url}\nCtrl-C ends it; every decision is saved when it is made.")
    if everywhere:
        say("Other machines use the name of this one in place of 127.0.0.1. Whoever has the address can decide.")


def _show_end(page: Review) -> None:
    """Print how many labels are decided now, and how many earlier decisions the audit and the review confirm."""
    from scanmix.review.rows import progress

    now = progress(page.audit, page.queue, page.decisions)
    say(
        f"{now['all_decided']} of {now['labels']} labels are decided. About {now['expected_left']:.0f} of the others "
        f"are wrong ({now['left_low']:.0f} to {now['left_high']:.0f})."
    )
    if now["before"]:
        again = f"; {now['again_same']} of {now['again_seen']} were decided the same again" if now["again_seen"] else ""
        say(
            f"{now['before']} of them were before this run; the audit still says that {now['before_doubted']} of these "
            f"are wrong{again}."
        )


def _review_of(run: Run, folder: Path, who: str, again: bool, order: Order = "worst") -> Review:
    """Score the labels and read the decisions made so far."""
    from scanmix.audit import score_labels
    from scanmix.progress import progress
    from scanmix.review import Decisions, Review
    from scanmix.review.rows import make_queue
    from scanmix.review.thumbnails import Thumbnails

    with progress("scoring labels", total=None):
        evidence = run.evidence()
        audit, images = score_labels(evidence), run.pictures(evidence)
    return Review(
        title=folder.resolve().name,
        audit=audit,
        queue=make_queue(audit, again, order),
        decisions=Decisions(folder, audit, who),
        thumbnails=Thumbnails(images, audit.order.tolist()),
    )


def _data_of(run: Run) -> str:
    """Return the data of a run as typed on the command line; "DATA" if it came from a program."""
    source = run.settings.source
    return "DATA" if source is None else as_typed([str(source["train"]["load"]["source"])])


def _new_folder(run: Run, folder: Path) -> list[str]:
    """Return the option that gives a further round its own folder; by default it would take that of the last round."""
    source = run.settings.source
    if source is None or not any("corrections" in step for step in source["train"].get("steps", [])):
        return []
    name = re.sub(r"-round\d+$", "", folder.resolve().name)
    count = 3
    while (out := folder.with_name(f"{name}-round{count}")).exists():
        count += 1
    return ["--out", str(out)]
