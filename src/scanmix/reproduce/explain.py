"""Every setting of one cell of a table, and where it comes from."""

from __future__ import annotations

import re
from typing import NamedTuple

from scanmix.config import Table, dump, flatten, note_of, recipe_layers
from scanmix.data.sources import kind_of, name_of
from scanmix.methods import METHODS
from scanmix.reproduce.tables import Cell, ResultTable
from scanmix.training import RunSettings, resolve

LINE = re.compile(r"(?P<key>[\w.]+)\s*=\s*[^#]*(?P<comment>#.*)?")


class Setting(NamedTuple):
    """A setting with its origin."""

    key: str
    value: object
    origin: str
    """`default`, or the recipe and its comment on the value."""


def settings_of(table: ResultTable, cell: Cell, overrides: Table | None = None) -> RunSettings:
    """Return the settings that a cell is trained with.

    Raises:
        UserError: a setting of `overrides` is unknown or out of range.
    """
    source = table.data(cell.noise)
    return resolve(cell.method, name_of(source), table.recipe(cell), overrides, kind=kind_of(source), seed=cell.seed)


def explained(table: ResultTable, cell: Cell) -> list[Setting]:
    """Return every setting of a cell with its value and its origin."""
    settings = settings_of(table, cell)
    origin_of = origins(settings.recipe)
    sections = {name: dump(getattr(settings, name)) for name in ("network", "views", "draw")}
    found = [
        Setting(key, value, origin_of.get(key, f"default: {note_of(METHODS[settings.method], key, settings.settings)}"))
        for key, value in flatten(settings.settings).items()
    ]
    for name, table_of in sections.items():
        cls = type(getattr(settings, name))
        for key, value in flatten(table_of).items():
            full = f"{name}.{key}"
            found.append(Setting(full, value, origin_of.get(full, f"default: {note_of(cls, key)}")))
    return found


def origins(recipe: str | None) -> dict[str, str]:
    """Return dotted key -> recipe and comment, for every value that a recipe or the one it extends gives."""
    if recipe is None:
        return {}
    found = {}
    for layer in recipe_layers(recipe):
        file = "" if layer.shares is None else f" (in {layer.shares}.toml)"
        section = ""
        for line in layer.path.read_text(encoding="utf-8").splitlines():
            if head := re.fullmatch(r"\[([\w.]+)\]\s*(#.*)?", line.strip()):
                section = head[1]
            elif section and (match := LINE.fullmatch(line.strip())):
                key = f"{section}.{match['key']}".removeprefix("settings.")
                comment = (match["comment"] or "").removeprefix("#").strip()
                found[key] = f"recipe {layer.name}" + (f": {comment}" if comment else "") + file
    return found
