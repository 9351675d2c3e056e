"""`scanmix methods`: what can be trained, and what can be set."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from scanmix.cli.shell import print_table
from scanmix.config import unknown_name


class Description(NamedTuple):
    """A method in one line of a table."""

    idea: str
    paper: str
    year: str
    nets: str
    labels: str
    cost: str


# Kept here and not in the methods' files: listing them must not import torch. A test compares the names.
DESCRIPTIONS = {
    "cross_entropy": Description(
        "believes every label: the control", "-", "-", "1", "all, as given", "1"
    ),
    "mixup": Description(
        "cross-entropy on mixed pairs of images", "Zhang et al., ICLR", "2018", "1", "all, as given", "1"
    ),
    "dividemix": Description(
        "two networks; each tells the other which labels look wrong",
        "Li et al., ICLR", "2020", "2", "the believed ones; the rest as unlabeled", "3-13",
    ),
    "scan": Description(
        "clusters of images and their neighbors",
        "Van Gansbeke et al., ECCV", "2020", "1", "none, only to name the clusters", "pre-training alone",
    ),
    "scan_dividemix": Description(
        "DivideMix that starts from SCAN's weights",
        "Sachdeva et al., Pattern Recognition (Table 6)", "2023", "2",
        "the believed ones; the rest as unlabeled", "pre-training, then 3-13",
    ),
    "scanmix": Description(
        "DivideMix and SCAN in turns: labels it believes, neighbors that agree",
        "Sachdeva et al., Pattern Recognition", "2023", "2",
        "the believed ones; the rest as unlabeled", "pre-training, then 7-17",
    ),
    "exact_em": Description(
        "the EM of ScanMix's theory, all pairs of a few hundred images: to see it, not to use it",
        "Sachdeva et al., Pattern Recognition (section 3.2)", "2023", "1", "all, as given", "14 and more",
    ),
}  # fmt: skip


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the settings of this method.")] = None,
) -> None:
    """List the methods, or the settings of one."""
    if name is None:
        rows = [[key, *description] for key, description in DESCRIPTIONS.items()]
        columns = ["method", "idea", "paper", "year", "nets", "labels used", "cost"]
        print_table("Methods", columns, rows, text_columns=len(columns))
        typer.echo("Cost: passes through a network in one epoch, cross_entropy = 1; low where few labels look right.")
        typer.echo("Pre-training needs no label, is done once and shared by later runs.")
        typer.echo("Settings of one: scanmix methods scanmix")
        return
    if name not in DESCRIPTIONS:
        raise unknown_name("method", name, DESCRIPTIONS)
    from scanmix.methods import METHODS

    rows = _settings(METHODS[name]())
    print_table(f"Settings of {name}", ["--set", "default", "meaning"], rows, text_columns=3)


def _settings(values: object, prefix: str = "") -> list[list[str]]:
    """One row for each setting: dotted key, default, meaning."""
    from scanmix.config.fields import fields_of, model_in, note_of

    rows: list[list[str]] = []
    for key, field in fields_of(type(values)).items():
        value = getattr(values, key)
        if model_in(field.annotation) is not None:
            rows += _settings(value, f"{prefix}{key}.")
        else:
            rows.append([prefix + key, str(value), note_of(type(values), key)])
    return rows
