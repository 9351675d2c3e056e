"""`scanmix methods`: what can be trained, and what can be set."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from scanmix.cli.shell import print_table, say
from scanmix.config import recipe_names, unknown_name

PAGE = """# Methods

`scanmix methods` lists them; `scanmix methods scanmix` lists every setting of one with its default. All go through the
same loop, views and network, and every one of them predicts with the network of its last epoch.
[A method of your own](new-method.md) adds one. This page is what `scanmix methods --markdown` prints.

**State** is what one epoch hands to the next, and all that a checkpoint holds: networks with their momentum, and
the fields named here. **Cost** counts passes through a network in one epoch; that of `cross_entropy` is 1. Where
two numbers stand, the first is for a clean set of a fifth of the images, the second for all of them: an epoch is
one pass over the images whose labels look right. Pre-training is not counted in it; it is done once for a set of
images, seed and settings, and kept in the cache for every later run. **Told** are settings for which the paper's
authors used what they knew of the noise; the defaults here do not, and a recipe that does is marked `oracle`.
"""


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the settings of this method.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/methods.md.")] = False,
) -> None:
    """List the methods, or the settings of one."""
    from scanmix.methods import METHODS

    if name is not None and name not in METHODS:
        raise unknown_name("method", name, METHODS)
    if markdown:
        say("\n".join([PAGE, *(_section(key) for key in METHODS)]).strip())
        return
    if name is None:
        rows = [[key, it.about.idea, it.about.paper, str(it.about.networks), it.about.labels, it.about.cost]
                for key, it in METHODS.items()]  # fmt: skip
        columns = ["method", "idea", "paper", "nets", "labels used", "cost"]
        print_table("Methods", columns, rows, text_columns=len(columns))
        say("Cost: passes through a network in one epoch, cross_entropy = 1; low where few labels look right.")
        say("Pre-training needs no label, is done once and shared by later runs.")
        say("State, recipes and settings of one: scanmix methods scanmix")
        return
    say(f"{name}: {METHODS[name].about.idea}\n")
    say("\n".join(_facts(name)) + "\n")
    print_table(f"Settings of {name}", ["--set", "default", "meaning"], _settings(METHODS[name]()), text_columns=3)


def _section(name: str) -> str:
    """One method on the page."""
    from scanmix.methods import METHODS

    about = METHODS[name].about
    idea = about.idea[0].upper() + about.idea[1:]
    return f"## {name}\n\n{idea}. {about.advice}\n\n" + "\n".join(_facts(name)) + "\n"


def _facts(name: str) -> list[str]:
    """What is kept, what it costs, where it is from."""
    from scanmix.methods import METHODS

    about = METHODS[name].about
    state = ", ".join(f"`{field.name}`" for field in dataclasses.fields(METHODS[name].State))
    recipes = ", ".join(recipe.split("/")[0] for recipe in recipe_names() if recipe.endswith(f"/any/{name}"))
    told = [f"- Told: `{about.oracle}`".replace(", ", "`, `")] if about.oracle else []
    return [
        f"- Networks: {about.networks}; state: {state}",
        f"- Cost: {about.cost}",
        f"- Labels: {about.labels}",
        *told,
        f"- Recipes for: {recipes or 'what `cross_entropy` has'}",
        f"- Paper: {about.paper}",
    ]


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
