"""`scanmix evaluate`: how good a finished run is, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from scanmix.cli.inputs import load_labeled
from scanmix.cli.options import Root, RunFolder
from scanmix.cli.shell import check_run, percent, print_table


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labeled images or vectors; by default the run's test data.")
    ] = None,
    root: Root = None,
) -> None:
    """Measure a finished run on labeled images or vectors."""
    check_run(run)
    from scanmix.checkpoint import load_model
    from scanmix.evaluate import evaluate as measure
    from scanmix.evaluate import evaluate_run

    model = load_model(run)
    result = evaluate_run(run) if data is None else measure(model, load_labeled(model, data, root))
    many = f"{model.kind}s"
    rows = []
    for place, (name, share) in enumerate(result["class_accuracy"].items()):
        counts = list(result["confusion"][place])
        total = sum(counts)
        counts[place] = 0
        most = max(range(len(counts)), key=counts.__getitem__)
        taken_for = f"{list(result['class_accuracy'])[most]} ({counts[most]})" if counts[most] else "-"
        rows.append([name, str(total), percent(share), taken_for])
    print_table(f"{run} on {data or f'its test {many}'}", ["class", many, "found", "most often taken for"], rows)
    typer.echo(f"Accuracy: {percent(result['accuracy'])} of {result['num_examples']} {many}{_how(result)}.")


def _how(result: Mapping[str, Any]) -> str:
    matched = result.get("accuracy_after_matching")
    return ", after the best matching of clusters with classes" if matched else ""
