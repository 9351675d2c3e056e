"""`scanmix evaluate`: the accuracy of a finished run, class by class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanmix.cli.embed import features_of
from scanmix.cli.inputs import load_labeled
from scanmix.cli.options import Encoder, Json, Root, RunFolder
from scanmix.cli.shell import check_run, check_writable, print_table, say, show_warning
from scanmix.config import percent
from scanmix.data.sources import check_source

if TYPE_CHECKING:
    from scanmix.data.examples import Examples


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labeled images or vectors; by default the run's test data.")
    ] = None,
    root: Root = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Another run, measured on the same data: is one better by chance?"),
    ] = None,
    rog: Annotated[
        bool, typer.Option("--rog", help="Also by RoG's robust head on the run's features, in place of its classifier.")
    ] = False,
    encoder: Encoder = None,
    json_: Json = None,
) -> None:
    """Measure a finished run on labeled images or vectors."""
    check_run(run)
    if json_ is not None:
        check_writable(json_)
    if data is not None:
        check_source(data)
    from scanmix.evaluate.accuracy import evaluate as measure
    from scanmix.evaluate.accuracy import test_set_of
    from scanmix.files import write_text
    from scanmix.model import load_model

    model = load_model(run, encoder=encoder)
    examples = test_set_of(run) if data is None else load_labeled(model, data, root)
    if model.encoder is not None:
        features_of(examples.without_open_set(), model.encoder.opened)  # with bars; what measures finds them
    result = measure(model, examples)
    _show(result, f"{run} on {data or f'its test {model.kind}s'}", f"{model.kind}s")
    if json_ is not None:
        write_text(json_, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if rog:
        from scanmix.evaluate.accuracy import evaluate_rog

        say(f"With RoG's head: {percent(evaluate_rog(run, examples))}.")
    if against is not None:
        _compare(run, against, examples)


def _show(result: Mapping[str, Any], title: str, many: str) -> None:
    """Print what was measured: each class, accuracy and balanced accuracy; `many` names what was classified."""
    rows = []
    for place, (name, share) in enumerate(result["class_accuracy"].items()):
        counts = list(result["confusion"][place])
        total = sum(counts)
        counts[place] = 0
        most = max(range(len(counts)), key=counts.__getitem__)
        taken_for = f"{list(result['class_accuracy'])[most]} ({counts[most]})" if counts[most] else "-"
        rows.append([name, str(total), percent(share), _within(result["class_interval"][name]), taken_for])
    columns = ["class", many, "found", "within (95 %)", "most often taken for"]
    print_table(title, columns, rows)
    five = f", {percent(result['top5_accuracy'])} among the first five guesses" if "top5_accuracy" in result else ""
    within = f"within {_within(result['accuracy_interval'])}{_how(result)}{five}"
    say(f"Accuracy: {percent(result['accuracy'])} of {result['num_examples']} {many}, {within}.")
    say(f"Balanced accuracy, the mean over classes: {percent(result['balanced_accuracy'])}.")
    if result["never_predicted"]:
        show_warning(f"never predicted, though there are {many} of them: {', '.join(result['never_predicted'])}")


def _compare(run: Path, other: Path, examples: Examples) -> None:
    """Print how certain the difference between two runs is, as in the paper's section 4.3, and what it leaves open."""
    from scanmix.evaluate.accuracy import right_ones
    from scanmix.evaluate.significance import compare

    check_run(other)
    found = compare(right_ones(run, examples), right_ones(other, examples))
    rows = [
        [str(folder), percent(mean), percent(spread)]
        for folder, mean, spread in zip((run, other), found.mean, found.deviation, strict=True)
    ]
    print_table("bootstrap over the test data", ["run", "mean accuracy", "standard deviation"], rows)
    low, high = found.interval
    say(
        f"Difference: {100 * found.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f} in 95 % of the "
        f"resamples), p = {found.p_value:.2g} (t-test with the bootstrap's variances)."
    )
    say("This is of these two trained networks; other seeds of training give others, which only more seeds tell.")


def _within(interval: tuple[float, float] | None) -> str:
    """Return an interval in words: "61.2 to 68.9 %"."""
    return "-" if interval is None else f"{percent(interval[0], unit='')} to {percent(interval[1])}"


def _how(result: Mapping[str, Any]) -> str:
    matched = result.get("accuracy_after_matching")
    return ", after the best matching of clusters with classes" if matched else ""
