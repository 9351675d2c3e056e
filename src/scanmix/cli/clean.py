"""`scanmix clean`: the whole way from data to a reviewed list of its wrong labels, in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scanmix.cli.doctor import checked, plan_of, show_estimates, show_proposal
from scanmix.cli.inputs import check_inputs
from scanmix.cli.options import Features, Labels, MethodName, Recipe, Root, Set, Size, TestData
from scanmix.cli.pretrained import planned
from scanmix.cli.report import report
from scanmix.cli.review import review
from scanmix.cli.shell import say, settings_from
from scanmix.cli.train import train
from scanmix.config import as_typed
from scanmix.data.sources import kind_of, name_of

Page = Annotated[
    bool | None, typer.Option("--review/--no-review", help="Open the review page at the end, or do not; else it asks.")
]


def clean(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train.")],
    test: TestData = None,
    features: Features = None,
    labels: Labels = None,
    method: MethodName = None,
    recipe: Recipe = None,
    set_: Set = None,
    size: Size = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/DATA-clean.")] = None,
    page: Page = None,
) -> None:
    """Find the wrong labels of your data: look, learn, list, review.

    Takes the steps of doctor, train, report and review one after the other, with features of a pretrained network where
    doctor proposes them. The same line goes on where it was stopped.
    """
    check_inputs(data, recipe=recipe, test=test, files=[labels])
    say("1 of 4: looking at the data.")
    features = features or _inspect(data, method, recipe, set_, root, size)
    folder = out or Path("runs") / "-".join([name_of(data), *([] if labels is None else [labels.stem]), "clean"])
    say("2 of 4: learning from it, and judging every label.")
    train(
        data, method=method, test=test, labels=labels, recipe=recipe, set_=set_, features=features, size=size,
        root=root, out=folder,
    )  # fmt: skip
    say("3 of 4: the report.")
    report(folder)
    say("4 of 4: the review. It shows one doubtful label after the other, and saves each decision at once.")
    if kind_of(data) == "vector":
        say(f"Vectors cannot be looked at: {folder / 'labels.csv'} lists them, the most doubtful first.")
        return
    if page is None:
        page = sys.stdin.isatty() and typer.confirm("Open the review page?", default=True)
    if page:
        review(folder)
    else:
        say(f"Whenever you like: scanmix review {as_typed([str(folder)])}")


def _inspect(
    data: str, method: str | None, recipe: str | None, set_: list[str] | None, root: Path | None, size: int | None
) -> str | None:
    """Say what is odd about the data; return the pretrained encoder to learn with, if one is at hand and worth it."""
    overrides = settings_from(set_ or ())
    settings = planned(data, None, None, method, recipe, overrides).settings
    checkup = checked(data, settings, overrides, root=root, size=size)
    plan = plan_of(checkup)
    if checkup.proposal is not None and method is None and recipe is None:
        show_proposal(checkup.proposal, ["scanmix", "clean", data])
        if checkup.proposal.features is not None:
            return checkup.proposal.features.model
    show_estimates(plan)
    return None
