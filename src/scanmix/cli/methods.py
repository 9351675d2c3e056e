"""`scanmix methods`: the methods, and their settings."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from scanmix.cli.options import Json
from scanmix.cli.shell import check_writable, print_table, say
from scanmix.config import GROUPS, recipe_names, shared_recipes, unknown_name
from scanmix.files import write_text
from scanmix.files.markdown import wrapped

PAGE = """# Methods

`scanmix methods` lists the methods. `scanmix methods scanmix` lists every setting of one method with its default.
All methods use the same loop, views and network. Each predicts with the network of its last epoch. You can add
[a method of your own](new-method.md). `scanmix methods --markdown` prints this page.

- **State** is what one epoch hands to the next. A checkpoint holds the networks with their momentum and the fields
  named here, and nothing else of the method.
- **Cost** counts passes through a network in one epoch. The cost of `cross_entropy` is 1. If there are two numbers,
  the first is for a clean set of a fifth of the images, and the second for a clean set of all images. An epoch is one
  pass over the images whose labels look right. Cost does not count pre-training. Pre-training runs once for a set of
  images, a seed and settings, and the cache keeps its result for later runs.
- **Measured** says whether `results/` of the repository has accuracies of the method. The others are tested, but were
  not measured there.
- **Told** are settings that the authors of the paper chose by what they knew of the noise. The defaults here do not
  use such knowledge. A recipe that does is marked `oracle`.
"""


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the settings of this method.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/methods.md.")] = False,
    json_: Json = None,
) -> None:
    """List the methods, or the settings of one."""
    if json_ is not None:
        check_writable(json_)
    from scanmix.methods import METHODS

    if name is not None and name not in METHODS:
        raise unknown_name("method", name, METHODS)
    if json_ is not None:
        write_text(json_, json.dumps([_described(key) for key in METHODS if name in (None, key)], indent=2) + "\n")
    if markdown:
        parts = [PAGE]
        for group, names in _grouped().items():
            title, meaning = GROUPS[group]
            parts += [f"## {title}\n\n{meaning[0].upper()}{meaning[1:]}.\n", *map(_section, names)]
        say("\n".join(parts).strip())
        return
    if name is None:
        for group, names in _grouped().items():
            title, meaning = GROUPS[group]
            rows = [[key, about.idea, about.paper, str(about.networks), about.labels, about.cost,
                     "yes" if about.measured else "no"]
                    for key in names for about in [METHODS[key].about]]  # fmt: skip
            columns = ["method", "idea", "paper", "nets", "labels used", "cost", "measured"]
            print_table(f"{title}: {meaning}", columns, rows, text_columns=len(columns))
        say("Measured: results/ of the repository has accuracies of it; the others are tested, but not measured there.")
        say("Cost: passes through a network in one epoch, cross_entropy = 1; low where few labels look right.")
        say("Pre-training needs no label, is done once and shared by later runs.")
        say("State, recipes and settings of one: scanmix methods scanmix")
        return
    say(f"{name}: {METHODS[name].about.idea}\n")
    say("\n".join(_facts(name)) + "\n")
    print_table(f"Settings of {name}", ["--set", "default", "meaning"], _settings(METHODS[name]()), text_columns=3)


def _grouped() -> dict[str, list[str]]:
    """Return the names of the methods by their group, in the order of the groups."""
    from scanmix.methods import METHODS

    members = {group: [name for name, it in METHODS.items() if it.about.group == group] for group in GROUPS}
    return {group: names for group, names in members.items() if names}


def _described(name: str) -> dict[str, object]:
    """Return a method and its settings for a script."""
    from scanmix.methods import METHODS

    about = METHODS[name].about
    keys = ("setting", "default", "meaning")
    return {
        "method": name, "idea": about.idea, "paper": about.paper, "networks": about.networks, "labels": about.labels,
        "cost": about.cost, "group": about.group, "measured": about.measured,
        "settings": [dict(zip(keys, row, strict=True)) for row in _settings(METHODS[name]())],
    }  # fmt: skip


def _section(name: str) -> str:
    """Return the section of a method in docs/methods.md."""
    from scanmix.methods import METHODS

    about = METHODS[name].about
    idea = about.idea[0].upper() + about.idea[1:]
    facts = [wrapped(fact, "  ") for fact in _facts(name)]
    return f"### {name}\n\n" + wrapped(f"{idea}. {about.advice}") + "\n\n" + "\n".join(facts) + "\n"


def _facts(name: str) -> list[str]:
    """Return the facts of a method as list items: state, cost, labels, whether measured, recipes, paper."""
    from scanmix.methods import METHODS

    about = METHODS[name].about
    state = ", ".join(f"`{field.name}`" for field in dataclasses.fields(METHODS[name].State))
    oracle = [f"- Told: `{about.oracle}`".replace(", ", "`, `")] if about.oracle else []
    return [
        f"- Networks: {about.networks}; state: {state}",
        f"- Cost: {about.cost}",
        f"- Labels: {about.labels}",
        f"- Measured: {'yes' if about.measured else 'no'}",
        *oracle,
        f"- Recipes for: {_recipes(name) or 'what `cross_entropy` has'}",
        f"- Paper: {about.paper}",
    ]


def _recipes(name: str) -> str:
    """Data with a recipe for a method: those with a file of their own first, the others with the recipe they share."""
    shared = shared_recipes()
    data_of: dict[str, list[str]] = {"": []}
    for recipe in recipe_names():
        data, noise, method = recipe.split("/")
        if (noise, method) == ("any", name):
            data_of.setdefault(shared.get(recipe, "").removeprefix(f"{data}/any/"), []).append(data)
    own = ", ".join(data_of.pop(""))
    return "; ".join([own] * bool(own) + [f"{', '.join(data)} (as `{file}`)" for file, data in data_of.items()])


def _settings(values: object, prefix: str = "") -> list[list[str]]:
    """Return a row for each setting: dotted key, default, meaning."""
    from scanmix.config.fields import fields_of, model_in, note_of

    rows: list[list[str]] = []
    for key, field in fields_of(type(values)).items():
        value = getattr(values, key)
        if model_in(field.annotation) is not None:
            rows += _settings(value, f"{prefix}{key}.")
        else:
            rows.append([prefix + key, str(value), note_of(type(values), key)])
    return rows
