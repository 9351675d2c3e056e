"""`scanmix audit`: which labels are probably wrong, which class they should have, and totals for the data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.shell import (
    Written,
    begins_with,
    check_run,
    check_writable,
    has_columns,
    print_table,
    say,
    show_warning,
)
from scanmix.config import UserError, percent
from scanmix.files import CannotWrite

if TYPE_CHECKING:
    from scanmix.audit import Audit

ARRAYS = Path("audit")
MOST_ANNOTATORS = 20
"""Annotators that the terminal shows."""
LABELS = Written("a table of an audit", has_columns(("id", "path", "given", "suggested", "p_clean")))
FILES = {
    "labels.csv": LABELS,
    "audit.json": Written("the summary of an audit", begins_with('"labels"', '"noise_rate"')),
    "labels.parquet": LABELS,
}
"""Files that are written, and how an earlier one that may be replaced is recognized."""


def audit(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Folder of a finished run; or give --labels and --probs.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Given labels, .npy of N numbers or names.")] = None,
    probs: Annotated[Path | None, typer.Option(help="Class probabilities, .npy of (N, C) or (P, N, C).")] = None,
    features: Annotated[Path | None, typer.Option(help="Features, .npy of (N, D): neighbors then vote.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names, as a,b,c, in the order of --probs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; by default RUN, or audit.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst labels to show.")] = 10,
    columns: Annotated[
        bool, typer.Option("--columns", help="Print what the columns of labels.csv hold, and do nothing else.")
    ] = False,
) -> None:
    """List every label, the most doubtful first: labels.csv, labels.parquet, audit.json.

    Takes the run of any method, or arrays of a model that was trained elsewhere.
    """
    if columns:
        from scanmix.audit.columns import columns_page

        say(columns_page())
        return
    if run is not None:
        if labels or probs or features or classes:
            raise UserError("give a RUN, or --labels and --probs, not both")
        check_run(run)
        _check_folder(out, run)
        from scanmix.training import open_run

        found, folder = open_run(run).audit(), out or run
    else:
        folder = out or ARRAYS
        _check_folder(folder)
        found = _audit_arrays(labels, probs, features, classes)
    from scanmix.training import writer

    with writer(folder, "being audited"):
        written = _write(found, folder)
    _show(found, worst)
    say(f"Written to {folder}: {', '.join(written)}.")


def _write(found: Audit, folder: Path) -> list[str]:
    """Write the tables of an audit; return their names."""
    found.to_csv(folder / "labels.csv")
    found.to_json(folder / "audit.json")
    written = ["labels.csv", "audit.json"]
    try:
        found.to_parquet(folder / "labels.parquet")
        written.append("labels.parquet")
    except CannotWrite:
        raise
    except UserError as error:  # pyarrow is missing
        show_warning(str(error))
    return written


def _check_folder(folder: Path | None, run: Path | None = None) -> None:
    """Refuse a folder in which a file that is no audit would be replaced; a run's own files may be."""
    if folder is None or not folder.exists() or (run is not None and folder.samefile(run)):
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; choose another --out")
    for name, written in FILES.items():
        if (folder / name).exists():
            check_writable(folder / name, written)


def _audit_arrays(labels: Path | None, probs: Path | None, features: Path | None, classes: str | None) -> Audit:
    """Audit arrays in `.npy` files; `classes` are names separated by commas."""
    if labels is None or probs is None:
        raise UserError("name the folder of a run, or give both --labels and --probs")
    from scanmix.audit import score_labels
    from scanmix.audit.arrays import evidence_from_arrays
    from scanmix.files.npy import read_array

    names = None if classes is None else [name.strip() for name in classes.split(",")]
    found = None if features is None else read_array(features)
    return score_labels(evidence_from_arrays(read_array(labels), read_array(probs), found, names))


def _show(found: Audit, worst: int) -> None:
    """Print the totals for the data set, then the first rows."""
    summary: dict[str, Any] = found.summary()
    rate = summary["noise_rate"]
    say(
        f"Wrong labels: about {summary['expected_wrong']:.0f} of {summary['labels']} "
        f"({percent(rate['value'])}; the evidence allows {percent(rate['low'])} to {percent(rate['high'])})."
    )
    say("Kinds: " + ", ".join(f"{count} {kind}" for kind, count in summary["kinds"].items()) + ".")
    if summary.get("decided"):
        words = ", ".join(f"{count} {word}" for word, count in summary["decided"].items())
        say(
            f"Decided by a person before: {words}; not counted above, and last in the list. The evidence still speaks "
            f"against {summary['decided_still_doubted']} of them."
        )
    if summary.get("annotators"):
        _show_annotators(found)
    rows = [[row["class"], str(int(row["labels"])), f"{row['expected_wrong']:.0f}"] for row in summary["classes"]]
    print_table("Labels by class, the worst class first", ["label", "labels", "expected wrong"], rows)
    pairs = [[pair["given"], pair["true"], f"{pair['expected']:.0f}"] for pair in summary["confused"]]
    print_table("Most confused", ["label", "looks like", "expected"], pairs, text_columns=2)
    if worst:
        columns = ["path" if found["path"][0] else "id", "given", "suggested", "p_clean", "kind", "reason"]
        cells = zip(*(found[column][:worst].tolist() for column in columns), strict=True)
        shown = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells]
        print_table("The most doubtful", columns, shown, text_columns=len(columns))


def _show_annotators(found: Audit) -> None:
    """Print the quality of each annotator, the worst first, and how many labels have no majority."""
    from scanmix.data.names import visible

    votes = found.votes
    rows = [
        [visible(each.annotator), f"{each.votes:,}", f"{percent(each.quality)} ± {100 * each.standard_error:.1f}"]
        for each in votes.annotators[:MOST_ANNOTATORS]
    ]
    more = len(votes.annotators) - len(rows)
    print_table("Annotators, the worst first", ["annotator", "votes", "right votes"], rows)
    if more > 0:
        say(f"{more} more annotators are in audit.json.")
    if votes.alike:
        say("The votes do not tell the annotators apart; all of them are judged together.")
    say(f"{votes.no_majority} of {len(found['id'])} labels have no majority: no class has more than half of the votes.")
