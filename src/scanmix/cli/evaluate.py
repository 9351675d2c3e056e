"""`scanmix evaluate`: how good a finished run is, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from scanmix.cli.inputs import load_labeled
from scanmix.cli.options import Root, RunFolder
from scanmix.cli.shell import check_run, percent, print_table


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labeled images; by default the run's test images.")
    ] = None,
    root: Root = None,
) -> None:
    """Measure a finished run on labeled images."""
    check_run(run)
    from scanmix.evaluate import evaluate_run

    result = evaluate_run(run) if data is None else _measure(run, data, root)
    rows = []
    for place, (name, share) in enumerate(result["class_accuracy"].items()):
        counts = list(result["confusion"][place])
        total = sum(counts)
        counts[place] = 0
        most = max(range(len(counts)), key=counts.__getitem__)
        taken_for = f"{list(result['class_accuracy'])[most]} ({counts[most]})" if counts[most] else "-"
        rows.append([name, str(total), percent(share), taken_for])
    print_table(f"{run} on {data or 'its test images'}", ["class", "images", "found", "most often taken for"], rows)
    typer.echo(f"Accuracy: {percent(result['accuracy'])} of {result['num_examples']} images{_how(result)}.")


def _measure(run: Path, data: str, root: Path | None) -> Mapping[str, Any]:
    from scanmix.checkpoint import load_model
    from scanmix.evaluate import evaluate as measure

    model = load_model(run)
    return measure(model, load_labeled(model, data, root))


def _how(result: Mapping[str, Any]) -> str:
    matched = result.get("accuracy_after_matching")
    return ", after the best matching of clusters with classes" if matched else ""
