"""Settings for all packages above: frozen dataclasses, TOML, assignments of the command line, recipes, durations.

A recipe overrides the defaults of the dataclasses, and the command line overrides the recipe. Errors say what is wrong,
where, and how to fix it.
"""

from scanmix.config.about import ALL_AS_GIVEN, GROUPS, About
from scanmix.config.arguments import LARGEST, check_type, file_path, texts, whole_number
from scanmix.config.durations import Duration, epochs_in, epochs_of
from scanmix.config.errors import DataError, UnexpectedData, UserError, in_short, nearest, unknown_name
from scanmix.config.fields import dotted_keys, note_of
from scanmix.config.install import install
from scanmix.config.models import STRICT, Batch, Count, Fidelity, Rate, Share, Weight, build, defaults, dump
from scanmix.config.recipes import (
    RECIPE_KEYS,
    RECIPES,
    check_recipe,
    load_recipe,
    recipe_layers,
    recipe_names,
    shared_recipes,
)
from scanmix.config.tables import Table, flatten, merge, overlay, parse_assignment, read_toml
from scanmix.config.words import as_typed, last_ten, mean_of_ten, percent

__all__ = [
    "ALL_AS_GIVEN",
    "GROUPS",
    "LARGEST",
    "RECIPES",
    "RECIPE_KEYS",
    "STRICT",
    "About",
    "Batch",
    "Count",
    "DataError",
    "Fidelity",
    "Rate",
    "Share",
    "Weight",
    "Duration",
    "Table",
    "UnexpectedData",
    "UserError",
    "as_typed",
    "build",
    "check_type",
    "defaults",
    "dotted_keys",
    "dump",
    "epochs_in",
    "epochs_of",
    "file_path",
    "flatten",
    "in_short",
    "install",
    "last_ten",
    "check_recipe",
    "load_recipe",
    "mean_of_ten",
    "merge",
    "nearest",
    "note_of",
    "overlay",
    "parse_assignment",
    "percent",
    "read_toml",
    "recipe_layers",
    "recipe_names",
    "shared_recipes",
    "texts",
    "unknown_name",
    "whole_number",
]
