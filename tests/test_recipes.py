"""The shipped recipes: every name keeps its settings, and no file says what another one says already."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scanmix.config import (
    RECIPES,
    UserError,
    flatten,
    load_recipe,
    read_toml,
    recipe_layers,
    recipe_names,
    shared_recipes,
)
from scanmix.data.examples import Kind
from scanmix.methods import METHODS, first_part
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.reproduce.explain import origins, settings_of
from scanmix.reproduce.tables import TABLES, Cell
from scanmix.training import resolve

SETTINGS: dict[str, Any] = json.loads((Path(__file__).parent / "recipes.json").read_text(encoding="utf-8"))
"""What each recipe says, with what it extends. A value that changes on purpose changes here, too."""
FILES = sorted(set(recipe_names()) - shared_recipes().keys())
"""Recipes that have a file of their own."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_name_keeps_its_settings(name: str) -> None:
    assert load_recipe(name) == SETTINGS[name]
    found = resolve(None, "some-data", name, kind="vector" if name.startswith(("vectors/", "features/")) else "image")
    assert (found.recipe, found.method, found.oracle) == (name, name.split("/")[2], SETTINGS[name].get("oracle", False))


@pytest.mark.parametrize("data", sorted({name.split("/")[0] for name in SETTINGS}))
def test_every_method_keeps_the_recipe_that_its_data_gives_it(data: str) -> None:
    for method in METHODS:
        own = f"{data}/any/{method}"
        kind: Kind = "vector" if data in ("vectors", "features") else "image"
        base = "vectors" if kind == "vector" else data
        found = [name for name in (own, f"{base}/any/{method}") if name in SETTINGS]
        wanted = [*found, f"{base}/any/cross_entropy"][0]
        whole = {"draw.per_epoch": None}  # Clothing1M's draw is refused where a method keeps something of each example
        assert resolve(method, data, overrides=whole, kind=kind).recipe == wanted


RED = {"epochs": 300, "learning_rate": 0.02, "weight_decay": 5e-4, "lr_drop": "200 epochs"}
PAPER: dict[str, dict[str, Any]] = {
    "clothing1m/any/scanmix": {
        "epochs": 80, "batch_size": 64, "learning_rate": 0.02, "warmup_rate": 0.02, "weight_decay": 5e-4,
        "lr_drop": "50%", "cluster_batch_size": 64, "warmup": "1 epoch", "mixup_alpha": 0.5, "unlabeled_weight": 0.0,
    },
    "clothing1m/any/scan_dividemix": {"dividemix.batch_size": 64, "dividemix.learning_rate": 0.02},
    "clothing1m/any/dividemix": {"batch_size": 32, "learning_rate": 0.002, "weight_decay": 1e-3},
    "red-mini-imagenet/any/scanmix": RED | {
        "lr_second_drop": "250 epochs", "reg_covar": 1e-3, "cluster_rate": 1e-3, "unlabeled_weight": 0.0,
        "warmup_view": "weak", "view": "weak", "severe_view": "weak", "cluster_view": "strong",
    },
    "red-mini-imagenet/any/scan_dividemix": {
        "warmup_view": "weak", "dividemix.lr_second_drop": "250 epochs", "dividemix.reg_covar": 1e-3,
    },
    "red-mini-imagenet/any/dividemix": RED | {"lr_second_drop": "250 epochs", "reg_covar": 5e-4},
    "webvision/any/scanmix": {
        "warmup_view": "weak", "view": "weak", "severe_view": "weak", "cluster_view": "strong", "reg_covar": 5e-4,
        "cluster_rate": 1e-5, "severe_cluster_rate": 1e-5, "cluster_batch_size": 64,
    },
    "webvision/any/scan_dividemix": {"warmup_view": "weak"},
    "cifar10/any/scanmix": {"warmup_view": "strong", "severe_view": "strong", "reg_covar": 5e-4},
    "cifar10/any/scan_dividemix": {"warmup_view": "strong"},
    "cifar100/any/elr_plus": {"average_ramp": "40000 steps", "regularization_ramp": "40000 steps", "clamp": 0.0},
}  # fmt: skip
"""Values of published configurations and of the paper's section 4.2 that differ between data sets."""


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_has_the_published_values(name: str) -> None:
    found = flatten(resolve(None, "some-data", name).settings)
    assert {key: found[key] for key in PAPER[name]} == PAPER[name]
    assert found.keys().isdisjoint({"cluster_view"}) or name.startswith(("red", "webvision"))


WITH_NORM = ("cifar", "red-mini-imagenet", "mini100-small", "clothing-small")
"""Data whose networks have a norm in the stem: those of the published tables, and the small tables of real pictures."""


@pytest.mark.parametrize("name", SETTINGS)
def test_networks_of_the_published_tables_have_a_norm_in_the_stem_and_small_ones_keep_theirs(name: str) -> None:
    kind: Kind = "vector" if name.startswith(("vectors/", "features/")) else "image"
    network = resolve(None, "some-data", name, kind=kind).network
    if isinstance(network, PreActResNetSettings):
        assert network.stem_norm is name.startswith(WITH_NORM)


COUNTS = {
    "digits-small": 1437, "fashion-small": 5000, "zoo-small": 5000, "table1-small": 5000, "cifar10-small": 10000,
    "mini100-small": 25000, "clothing-small": 3068,
}  # fmt: skip
"""Training images of a table."""


@pytest.mark.parametrize("table", COUNTS)
def test_every_method_of_a_small_table_has_epochs_left_after_it_learned_all_labels(table: str) -> None:
    for method in TABLES[table].methods:
        found = settings_of(TABLES[table], Cell(method, TABLES[table].noises[0], 0)).build_method()
        first, parts = first_part(found, COUNTS[table])
        assert first < found.epochs, f"{method}: {parts} are {first} of {found.epochs} epochs"


def test_no_name_is_lost() -> None:
    assert set(SETTINGS) <= set(recipe_names())


@pytest.mark.parametrize("left_out", ["extends", "method"])
def test_no_recipe_repeats_another_or_says_nothing(left_out: str) -> None:
    """A file that differs from another only in its data or only in its method: its name belongs in `shared.toml`."""
    said: dict[str, str] = {}
    for name in FILES:
        recipe = read_toml(RECIPES / f"{name}.toml")
        assert recipe.keys() - {"extends", "method", "oracle"}, f"{name} says nothing of its own"
        body = json.dumps({key: value for key, value in recipe.items() if key != left_out}, sort_keys=True)
        assert body not in said, f"{name} says what {said[body]} says"
        said[body] = name


def test_shared_names_have_no_file_and_lead_to_one() -> None:
    assert len(FILES) < 120 < len(recipe_names())
    for name, file in shared_recipes().items():
        assert file in FILES and name not in FILES
        assert len(name.split("/")) == 3 and name.split("/")[2] in METHODS
        (*below, own) = recipe_layers(name)
        assert own.path == RECIPES / f"{file}.toml" and own.path.is_file()
        for layer in below:
            assert layer.name.split("/")[0] == name.split("/")[0], "what it extends is of its own data"


def test_a_shared_recipe_is_laid_on_that_of_its_own_data() -> None:
    """The files that `vectors/any/ssr_plus` is made of, and where its values come from."""
    below, own = recipe_layers("vectors/any/ssr_plus")
    assert (below.name, below.shares) == ("vectors/any/cross_entropy", None)
    assert (own.name, own.shares, own.path) == (
        "vectors/any/ssr_plus",
        "folder/any/ssr",
        RECIPES / "folder/any/ssr.toml",
    )
    said = origins("vectors/any/ssr_plus")
    assert said["epochs"] == "recipe vectors/any/cross_entropy"
    assert said["num_neighbors"] == (
        "recipe vectors/any/ssr_plus: of 5,000 images in a class the paper takes 200 (in folder/any/ssr.toml)"
    )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("digits/any/ssr_pluss", "digits/any/ssr_plus"),
        ("cifar10n/any/scannmix", "cifar10n/any/scanmix"),
        ("shared", None),
        ("cifar10/any/mentor-mix", "cifar10/any/mentormix"),
    ],
)
def test_a_name_that_is_no_recipe_is_refused(name: str, nearest: str | None) -> None:
    with pytest.raises(UserError, match=f"^unknown recipe '{name}'; ") as refused:
        load_recipe(name)
    assert nearest is None or f"did you mean '{nearest}" in str(refused.value)


def test_a_recipe_of_ones_own_extends_a_shared_one(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "cifar10n/any/mixup"\n[settings]\nepochs = 3\n')
    shared = load_recipe("cifar10n/any/mixup")
    assert load_recipe(tmp_path / "mine.toml") == shared | {"settings": {"epochs": 3}}
    assert shared["method"] == "mixup"


def test_a_file_goes_before_a_shared_one(tmp_path: Path) -> None:
    for name in ("a/any/mixup", "b/any/mixup"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a/any/mixup.toml").write_text('method = "mixup"\n[settings]\nepochs = 3\n')
    (tmp_path / "shared.toml").write_text('"b/any/mixup" = "a/any/mixup"\n')
    assert recipe_names(tmp_path) == ["a/any/mixup", "b/any/mixup"]
    assert load_recipe("b/any/mixup", tmp_path)["settings"] == {"epochs": 3}
    (tmp_path / "b/any/mixup.toml").write_text('method = "mixup"\n[settings]\nepochs = 4\n')
    assert load_recipe("b/any/mixup", tmp_path)["settings"] == {"epochs": 4}


def test_the_wheel_ships_every_recipe() -> None:
    """Hatch packs the folder of the package as it is; nothing may be left out of it by a rule of its own."""
    root = Path(__file__).parents[1]
    targets = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"] == {"packages": ["src/scanmix"]}
    assert RECIPES == root / "src" / "scanmix" / "recipes"
    assert {path.suffix for path in RECIPES.rglob("*") if path.is_file()} == {".toml"}
