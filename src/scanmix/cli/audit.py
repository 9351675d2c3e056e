"""`scanmix audit`: which labels are probably wrong, which class they should have, and totals for the data set."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.embed import features_of, opened
from scanmix.cli.inputs import check_inputs, is_table, name_parts, plain_name, relabeled, shares_of, size_for
from scanmix.cli.options import Noise, PerClass, Root, Seed, Size
from scanmix.cli.shell import (
    Written,
    begins_with,
    check_writable,
    has_columns,
    print_table,
    say,
    shape_of,
    show_skipped,
    show_warning,
    stage_bars,
)
from scanmix.config import UserError, percent
from scanmix.data.names import from_here
from scanmix.data.sources import check_source, is_known, kind_of
from scanmix.files import CannotWrite

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scanmix.audit import Audit
    from scanmix.data.examples import Examples

Source = Annotated[
    str | None,
    typer.Argument(metavar="[RUN|DATA]", help="Folder of a run, or data as for train; or give --labels with --probs."),
]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of arrays: given labels, .npy or a table. Of DATA: as for train.")
]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|MODEL",
        help="Features that tell neighbors: .npy of (N, D), for DATA, too; or of DATA, a model as for embed.",
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(help="Shares of the true classes where they are known, as cat=0.7,dog=0.3; of DATA or arrays."),
]
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
    source: Source = None,
    labels: Labels = None,
    probs: Annotated[Path | None, typer.Option(help="Class probabilities, .npy of (N, C) or (P, N, C).")] = None,
    features: Features = None,
    classes: Annotated[str | None, typer.Option(help="Class names, as a,b,c, in the order of --probs.")] = None,
    prior: Prior = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default RUN, audit/DATA, or audit for arrays.")
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst labels to show.")] = 10,
    noise: Noise = "none",
    seed: Seed = 0,
    per_class: PerClass = None,
    size: Size = None,
    root: Root = None,
    columns: Annotated[
        bool, typer.Option("--columns", help="Print what the columns of labels.csv hold, and do nothing else.")
    ] = False,
) -> None:
    """List every label, the most doubtful first: labels.csv, labels.parquet, audit.json.

    Takes the run of any method; data, on which nothing is trained; or arrays of a model that was trained elsewhere.
    """
    if columns:
        from scanmix.audit.columns import columns_page

        say(columns_page())
        return
    for_data: dict[str, object] = {
        "--noise": None if noise == "none" else noise, "--per-class": per_class, "--size": size, "--root": root,
    }  # fmt: skip
    for_arrays: dict[str, object] = {"--probs": probs, "--classes": classes}
    for_both: dict[str, object] = {"--labels": labels, "--features": features, "--prior": prior}
    truth = None
    if source is None:
        _refuse("arrays", for_data)
        _check_folder(folder := out or ARRAYS)
        found = _audit_arrays(labels, probs, features, classes, shares_of(prior))
    elif (Path(source) / "run.toml").is_file():
        _refuse(f"a run, as {source} is", for_data | for_arrays | for_both)
        folder = out or Path(source)
        _check_folder(out, Path(source))
        from scanmix.training import open_run

        found = open_run(source).audit()
    else:
        _refuse(f"data, as {source} is", for_arrays)
        _check_data(source, noise, labels)
        folder = out or ARRAYS / plain_name(name_parts(source, noise, labels))
        _check_folder(folder)
        read = functools.partial(_load, source, labels, noise, seed, per_class=per_class, root=root)
        examples, given = _with_features(read, source, features, root, size)
        found, truth = _audit_examples(examples, given, shares_of(prior)), examples.true_labels
    from scanmix.training import writer

    with writer(folder, "being audited"):
        written = _write(found, folder)
    _show(found, worst, truth)
    say(f"Written to {folder}: {', '.join(written)}.")


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Refuse options that were given and do not go with what is audited."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        verb = "does" if len(given) == 1 else "do"
        raise UserError(f"{', '.join(given)} {verb} not go with the audit of {what}; leave out one or the other")


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


def _check_data(source: str, noise: str, labels: Path | None) -> None:
    """Refuse data that is not there, or what is mistyped beside it."""
    with _meant_as_data(source):
        check_source(source)
    check_inputs(source, noise=noise, files=[labels])


@contextlib.contextmanager
def _meant_as_data(source: str) -> Iterator[None]:
    """Say of a folder that cannot be read, or is not there, that it is no run either: it may have been meant as one."""
    try:
        yield
    except UserError as error:
        if is_known(source) or Path(source).is_file():
            raise
        raise UserError(f"{source} is no run, as it has no run.toml, and cannot be read as data: {error}") from None


def _load(
    source: str, labels: Path | None, noise: str, seed: int, *, root: Path | None, size: int | None,
    per_class: int | None,
) -> Examples:  # fmt: skip
    """Load the data to audit, the training part where there are two, and say what it is."""
    from scanmix.data.readers import load

    given, corrections = (labels, None) if kind_of(source) == "vector" else (None, labels)
    with _meant_as_data(source):
        examples, test = load(
            source, root=root, size=size, per_class=per_class, seed=seed, labels=given, least_classes=1
        )
    examples = relabeled(examples, noise, seed, corrections)
    apart = "" if test is None else f" Its test part ({len(test)}) is left out."
    say(
        f"{examples.name}: {len(examples)} {examples.kind}s of {examples.num_classes} classes "
        f"({shape_of(examples)}).{apart}"
    )
    show_skipped(examples.skipped)
    return examples


def _with_features(
    read: Callable[..., Examples], source: str, features: str | None, root: Path | None, size: int | None
) -> tuple[Examples, str | np.ndarray | None]:
    """Read the data, at a size that suits the model where `--features` names one, and compute its features.

    Shape: -> of N examples, features (N, D); a file of them, or none, is returned as it was given.
    """
    from scanmix.features import is_encoder

    if features is None or not is_encoder(features):
        return read(size=size), features
    if kind_of(source) == "vector":
        raise UserError(f"{source} holds vectors; --features {features} turns pictures into features")
    encoder = opened(features)
    examples = read(size=size or size_for(source, root, encoder.side))
    return examples, features_of(examples, encoder)


def _audit_examples(examples: Examples, features: str | np.ndarray | None, prior: Mapping[str, float] | None) -> Audit:
    """Audit data without a run; `features` are a `.npy` in the order of the examples, or its rows. Shape: (N, D)."""
    from scanmix.audit import audit_data
    from scanmix.files.npy import read_rows

    given = read_rows(Path(features)) if isinstance(features, str) else features
    if given is not None and len(given) != len(examples):
        raise UserError(
            f"{features} has {len(given)} rows for {len(examples)} {examples.kind}s of {examples.name}; one for each "
            "is needed, in their order"
        )
    with stage_bars() as tick:
        return audit_data(examples, given, tick, prior)


def _audit_arrays(
    labels: Path | None, probs: Path | None, features: str | None, classes: str | None,
    prior: Mapping[str, float] | None,
) -> Audit:  # fmt: skip
    """Audit arrays in files; `classes` are names separated by commas."""
    if labels is None:
        raise UserError("name the folder of a run or data, or give --labels and with it --probs, --features or both")
    if probs is None and features is None:
        raise UserError(f"the labels in {labels} alone tell nothing: give --probs, --features or both with them")
    import numpy as np

    from scanmix.audit import score_labels
    from scanmix.audit.arrays import evidence_from_arrays
    from scanmix.data.readers.vectors import read_labels
    from scanmix.features import is_encoder
    from scanmix.files.npy import read_array

    if features is not None and is_encoder(features):
        raise UserError(f"--features {features} needs pictures: name DATA, or give a .npy of features")
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    ids: list[str] = []
    trusted: list[bool] = []
    if is_table(labels):
        words, ids, trusted = read_labels(labels)
        given = np.array(words, dtype=str)
    else:
        given = read_array(labels)
    said, found = (None if path is None else read_array(Path(path)) for path in (probs, features))
    return score_labels(evidence_from_arrays(given, said, found, names, ids or None, prior, trusted or None))


def _show(found: Audit, worst: int, truth: Tensor | None = None) -> None:
    """Print the totals for the data set, then the first rows. Shape: `truth` (N,), true labels where they are known."""
    from scanmix.audit.decided import sentences

    summary: dict[str, Any] = found.summary()
    rate = summary["noise_rate"]
    say(
        f"Wrong labels: about {summary['expected_wrong']:.0f} of {summary['labels']} "
        f"({percent(rate['value'])}; the evidence allows {percent(rate['low'])} to {percent(rate['high'])})."
    )
    for sentence in (*found.readings, *sentences(summary)):
        say(sentence)
    if truth is not None:
        _show_truth(found, truth)
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
        names = map(from_here, found[columns[0]][:worst].tolist())
        cells = zip(names, *(found[column][:worst].tolist() for column in columns[1:]), strict=True)
        shown = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells]
        print_table("The most doubtful", columns, shown, text_columns=len(columns))


def _show_truth(found: Audit, truth: Tensor) -> None:
    """Print how many labels are known to be wrong, and how many of these look wrong. Shape: (N,), as loaded."""
    names = (*found.class_names, "")  # the last for `OPEN_SET`, which is -1
    known = [names[label] for label in truth.numpy()[found.order].tolist()]
    wrong = found["given"] != known
    looks = found.looks_wrong
    right = wrong & looks
    say(
        f"Known: {wrong.sum()} labels are wrong ({percent(wrong.mean())}). {looks.sum()} look wrong, and {right.sum()} "
        "of these are."
    )


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
