"""Settings shared by every floor above: frozen models, TOML, the command line, recipes, durations.

Order: defaults of the dataclasses < recipe < command line. Errors say what, where, and the fix.
"""

from scanmix.config.about import About
from scanmix.config.arguments import LARGEST, check_type, file_path, texts, whole_number
from scanmix.config.durations import Duration, epochs_of
from scanmix.config.errors import DataError, UnexpectedData, UserError, in_short, nearest, unknown_name
from scanmix.config.fields import dotted_keys, note_of
from scanmix.config.models import STRICT, Batch, Count, Fidelity, Rate, Share, Weight, build, defaults, dump
from scanmix.config.recipes import RECIPE_KEYS, RECIPES, load_recipe, recipe_names
from scanmix.config.tables import Table, flatten, merge, overlay, parse_assignment, read_toml
from scanmix.config.words import percent

__all__ = [
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
    "build",
    "check_type",
    "defaults",
    "dotted_keys",
    "dump",
    "epochs_of",
    "file_path",
    "flatten",
    "in_short",
    "load_recipe",
    "merge",
    "nearest",
    "note_of",
    "overlay",
    "parse_assignment",
    "percent",
    "read_toml",
    "recipe_names",
    "texts",
    "unknown_name",
    "whole_number",
]
