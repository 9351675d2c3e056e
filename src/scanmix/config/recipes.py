"""Recipes: short TOML files that say only what differs from the defaults, shipped inside the package.

A recipe is named as its file: `digits/any/scan` is `digits/any/scan.toml` in the folder of recipes, data/noise/method.
A name without a file is looked up in `shared.toml`, which names the recipe whose file it shares.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import NamedTuple

from scanmix.config.errors import UserError, unknown_name
from scanmix.config.tables import Table, overlay, read_toml

RECIPES = Path(str(resources.files("scanmix"))) / "recipes"
RECIPE_KEYS = ("extends", "method", "oracle", "draw", "network", "views", "settings")
SHARED = "shared.toml"
"""Names of recipes that have no file of their own, each with the recipe whose file it shares."""


class RecipeLayer(NamedTuple):
    """One of the files that a recipe is made of."""

    name: str
    """Recipe that it was asked for as: `digits/any/ssr` or `mine.toml`."""
    path: Path
    shares: str | None
    """Recipe whose file it is, where the name has none of its own: `folder/any/ssr`."""
    table: Table


def recipe_names(recipes_dir: Path = RECIPES) -> list[str]:
    """Names of the recipes in a folder, such as `digits/any/scanmix`, sorted."""
    files = {path.relative_to(recipes_dir).with_suffix("").as_posix() for path in recipes_dir.rglob("*.toml")}
    return sorted(files - {Path(SHARED).stem} | shared_recipes(recipes_dir).keys())


def shared_recipes(recipes_dir: Path = RECIPES) -> dict[str, str]:
    """Recipes without a file of their own: name -> recipe whose file it shares."""
    path = recipes_dir / SHARED
    return read_toml(path) if path.is_file() else {}


def load_recipe(path_or_name: str | Path, recipes_dir: Path = RECIPES) -> Table:
    """Read a recipe by name (`digits/any/scanmix`) or path (`mine.toml`), laid on what it extends.

    Raises:
        UserError: no such recipe, an unknown section, or `extends` over more than one level.
    """
    recipe: Table = {}
    for layer in recipe_layers(path_or_name, recipes_dir):
        recipe = overlay(recipe, layer.table)
        if layer.shares is not None:
            recipe["method"] = layer.name.rpartition("/")[2]
    recipe.pop("extends", None)
    return recipe


def recipe_layers(path_or_name: str | Path, recipes_dir: Path = RECIPES) -> list[RecipeLayer]:
    """Read the files that a recipe is made of: that of the recipe it extends, if there is one, and then its own.

    What a shared file extends is that of the data asked for: `vectors/any/ssr` shares `folder/any/ssr`, which extends
    `folder/any/cross_entropy`, and is laid on `vectors/any/cross_entropy`.

    Raises:
        UserError: as `load_recipe`.
    """
    own = _read_layer(str(path_or_name), recipes_dir, beside=Path())
    parent = own.table.get("extends")
    if parent is None:
        return [own]
    if own.shares is not None and parent.partition("/")[0] == own.shares.partition("/")[0]:
        parent = f"{own.name.partition('/')[0]}/{parent.partition('/')[2]}"
    below = _read_layer(parent, recipes_dir, beside=own.path.parent)
    if "extends" in below.table:
        raise UserError(f"{own.path}: extends {parent!r}, which extends another; only one level is allowed")
    return [below, own]


def check_recipe(path_or_name: str, recipes_dir: Path = RECIPES) -> None:
    """Refuse a recipe that does not exist, without reading it.

    Raises:
        UserError: there is no file at the path, or no recipe of the name.
    """
    if not path_or_name.endswith(".toml"):
        _file_of(path_or_name, recipes_dir)
    elif not Path(path_or_name).is_file():
        raise UserError(f"{path_or_name}: no such file")


def _read_layer(name: str, recipes_dir: Path, beside: Path) -> RecipeLayer:
    """Read one file: the one at a path, that of a name, or the one that the name shares."""
    if name.endswith(".toml"):
        return RecipeLayer(name, beside / name, None, _read_recipe(beside / name))
    path, shares = _file_of(name, recipes_dir)
    return RecipeLayer(name, path, shares, _read_recipe(path))


def _file_of(name: str, recipes_dir: Path) -> tuple[Path, str | None]:
    """Return the file of a recipe, and the recipe whose file it is where the name has none of its own."""
    path, shares = recipes_dir / f"{name}.toml", None
    if not path.is_file() or path == recipes_dir / SHARED:
        shares = shared_recipes(recipes_dir).get(name)
        if shares is None:
            raise unknown_name("recipe", name, recipe_names(recipes_dir))
        path = recipes_dir / f"{shares}.toml"
    return path, shares


def _read_recipe(path: Path) -> Table:
    recipe = read_toml(path)
    for key, value in recipe.items():
        if key not in RECIPE_KEYS:
            raise UserError(f"{path}: {unknown_name('section', key, RECIPE_KEYS)}")
        wanted = {"extends": str, "method": str, "oracle": bool}.get(key, dict)
        if not isinstance(value, wanted):
            words = {str: "a text in quotes", bool: "true or false", dict: f"a table, [{key}]"}
            raise UserError(f"{path}: {key} = {value!r}: {words[wanted]} is expected")
    return recipe
