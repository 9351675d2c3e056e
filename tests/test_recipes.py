"""The shipped recipes: every name keeps its settings, and no file says what another one says already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scanmix.config import load_recipe, recipe_names
from scanmix.methods import METHODS
from scanmix.runs import resolve

SETTINGS: dict[str, Any] = json.loads((Path(__file__).parent / "recipes.json").read_text(encoding="utf-8"))
"""What each recipe of version 0.1 says, with what it extends."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_name_keeps_its_settings(name: str) -> None:
    assert load_recipe(name) == SETTINGS[name]
    found = resolve(None, "some-data", name, kind="vector" if name.startswith("vectors/") else "image")
    assert (found.recipe, found.method, found.oracle) == (name, name.split("/")[2], SETTINGS[name].get("oracle", False))


@pytest.mark.parametrize("data", sorted({name.split("/")[0] for name in SETTINGS}))
def test_every_method_keeps_the_recipe_that_its_data_gives_it(data: str) -> None:
    for method in METHODS:
        own = f"{data}/any/{method}"
        wanted = own if own in SETTINGS else f"{data}/any/cross_entropy"
        found = resolve(
            method, data, overrides={"draw.per_epoch": None}, kind="vector" if data == "vectors" else "image"
        )  # Clothing1M's draw is refused where a method keeps something of each example
        assert found.recipe == wanted


def test_no_name_is_lost() -> None:
    assert set(SETTINGS) <= set(recipe_names())
