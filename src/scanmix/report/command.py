"""The command line that repeats a run, and how its settings differ from the defaults or from another run's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from scanmix.config import Table, UserError, as_typed, defaults, dump, flatten, load_recipe
from scanmix.data.names import from_here
from scanmix.data.sources import is_known
from scanmix.methods import METHODS
from scanmix.training import OTHER_SECTIONS, Run, RunSettings, resolve
from scanmix.training.finetune import resolve_finetuned

SHOWN_ELSEWHERE = (
    "features",
    "finetuned",
    "fingerprint",
    "test_fingerprint",
    "trusted_fingerprint",
    "source",
    "oracle",
    "recipe",
    "threads",
    "device",
)
"""Settings that the report shows in another place than the comparison of two runs."""


class Change(NamedTuple):
    """A setting with two values, and for one run where the second comes from: "recipe" or "given"."""

    key: str
    before: Any
    after: Any
    origin: str = ""


class Difference(NamedTuple):
    """How the settings of two runs differ: those with two values, and those that only one run has."""

    changes: list[Change]
    only_first: list[str]
    only_second: list[str]


def changed_settings(settings: RunSettings) -> list[Change]:
    """Return the settings that differ from the defaults, each with its origin: "recipe" or "given"."""
    sections = {name: defaults(type(getattr(settings, name))) for name in OTHER_SECTIONS}
    usual = {**flatten(dump(METHODS[settings.method]())), **flatten(sections)}
    recipe = _recipe_values(settings.recipe)
    return [
        Change(key, usual.get(key), value, "recipe" if recipe.get(key) == value else "given")
        for key, value in _values(settings).items() if usual.get(key) != value
    ]  # fmt: skip


def difference(first: Run, second: Run) -> Difference:
    """Return how the settings of two runs differ; settings that only one method has are listed apart."""
    one, two = (_all_values(run) for run in (first, second))
    changes = [Change(key, one[key], two[key]) for key in one if key in two and one[key] != two[key]]
    return Difference(changes, [key for key in one if key not in two], [key for key in two if key not in one])


def train_command(run: Run) -> str | None:
    """Return the command line that trains the run again; None if the command line cannot express it."""
    settings, name = run.settings, str(run.about["name"])
    words = None if settings.source is None else _data_words(settings.source, settings.seed)
    if words is None:
        return None
    words += ["--method", settings.method, "--seed", str(settings.seed)]
    if settings.features is not None:
        if settings.features.is_function:
            return None
        words += ["--features", settings.features.name]
    if settings.finetuned is not None:
        words += ["--finetune", settings.finetuned.name]
    usual = _resolved(settings, name)
    try:
        base = _resolved(settings, name, settings.recipe)
        words += [] if settings.recipe == usual.recipe else ["--recipe", str(settings.recipe)]
    except UserError:  # the recipe no longer exists: its values are given one by one
        base = usual
    before, here = _values(base), _values(settings)
    if not set(before) <= set(here):
        return None  # a setting is unset, which `--set` cannot express
    for key, value in here.items():
        if before.get(key) != value:
            words += ["--set", f"{key}={json.dumps(value)}"]
    if settings.threads is not None:
        words += ["--threads", str(settings.threads)]
    return as_typed(["scanmix", "train", *words])


def _resolved(settings: RunSettings, name: str, recipe: str | None = None) -> RunSettings:
    """Return what the command line resolves for such a run on data of this name, before anything is set by hand."""
    if settings.finetuned is not None:
        return resolve_finetuned(settings.finetuned, settings.method, recipe)
    return resolve(settings.method, name, recipe, kind=settings.given, features=settings.features is not None)


def _data_words(source: Mapping[str, Any], seed: int) -> list[str] | None:
    """Return DATA and the options that load it the same way; None if the command line cannot express it."""
    load, steps = dict(source["train"]["load"]), list(source["train"].get("steps", []))
    words = [_typed(str(load.pop("source")))]
    if source["train"]["split"] != "train" or load.pop("seed", seed) != seed:
        return None
    for key in ("root", "size", "per_class", "limit_test", "labels"):
        if key in load:
            words += [f"--{key.replace('_', '-')}", _typed(str(load.pop(key)))]
    noise = steps.pop(0)["noise"] if steps and "noise" in steps[0] else {}
    if load or steps or noise.get("seed", seed) != seed:
        return None
    if noise:
        words += ["--noise", f"{noise['kind']}:{_typed(noise['path']) if noise['kind'] == 'file' else noise['rate']}"]
    test = source.get("test")
    if test is not None and test["load"] != source["train"]["load"]:
        words += ["--test", _typed(str(test["load"]["source"]))]
    return words


def _typed(place: str) -> str:
    """Return a file, a folder or a name as it is typed in the current folder."""
    words = from_here(place)
    return f"./{words}" if is_known(words) and words != place else words


def _values(settings: RunSettings) -> Table:
    """Return the settings by dotted key, as `--set` names them."""
    sections: Table = {name: dump(getattr(settings, name)) for name in OTHER_SECTIONS}
    return {**flatten(settings.settings), **flatten(sections)}


def _all_values(run: Run) -> Table:
    """Return everything that a comparison of two runs looks at, by dotted key."""
    shown = {key: value for key, value in dump(run.settings).items() if key not in SHOWN_ELSEWHERE}
    settings = shown.pop("settings")
    about = {f"data.{key}": value for key, value in run.about.items() if key != "class_names"}
    if run.settings.features is not None:
        about["features"] = run.settings.features.name
    if run.settings.finetuned is not None:
        about["finetuned"] = run.settings.finetuned.name
    return {**about, **flatten(shown), **flatten(settings)}


def _recipe_values(recipe: str | None) -> Table:
    """Return the values of a recipe by dotted key; empty if there is none or it no longer exists."""
    if recipe is None:
        return {}
    try:
        table = load_recipe(recipe)
    except UserError:
        return {}
    sections: Table = {name: table[name] for name in OTHER_SECTIONS if name in table}
    return {**flatten(table.get("settings", {})), **flatten(sections)}
