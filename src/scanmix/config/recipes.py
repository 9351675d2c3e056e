"""Recipes: short TOML files that say only what differs from the defaults, shipped inside the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scanmix.config.errors import UserError, unknown_name
from scanmix.config.tables import Table, overlay, read_toml

RECIPES = Path(str(resources.files("scanmix"))) / "recipes"
RECIPE_KEYS = ("extends", "method", "oracle", "draw", "network", "views", "settings")


def recipe_names(recipes_dir: Path = RECIPES) -> list[str]:
    """Names of the recipes in a folder, such as `digits/any/scanmix`, sorted."""
    return sorted(path.relative_to(recipes_dir).with_suffix("").as_posix() for path in recipes_dir.rglob("*.toml"))


def load_recipe(path_or_name: str | Path, recipes_dir: Path = RECIPES) -> Table:
    """Read a recipe by name (`digits/any/scanmix`) or path (`mine.toml`), laid on what it extends.

    Raises:
        UserError: no such recipe, an unknown section, or `extends` over more than one level.
    """
    path = _recipe_path(str(path_or_name), recipes_dir, beside=Path())
    recipe = _read_recipe(path)
    parent = recipe.pop("extends", None)
    if parent is None:
        return recipe
    below = _read_recipe(_recipe_path(parent, recipes_dir, beside=path.parent))
    if "extends" in below:
        raise UserError(f"{path}: extends {parent!r}, which extends another; only one level is allowed")
    return overlay(below, recipe)


def _recipe_path(name: str, recipes_dir: Path, beside: Path) -> Path:
    if name.endswith(".toml"):
        return beside / name
    path = recipes_dir / f"{name}.toml"
    if not path.is_file():
        raise unknown_name("recipe", name, recipe_names(recipes_dir))
    return path


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
