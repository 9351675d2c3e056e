"""Settings that are newer than 0.1.0: older files are read with what was done then, and hashes stay what they were."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scanmix
from scanmix.config import Table, build, dotted_keys, dump, flatten, merge
from scanmix.methods import METHODS
from scanmix.networks import encoders
from scanmix.networks.encoders import hashed_network, stored_network
from scanmix.networks.mlp import MlpSettings
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.networks.resnet import ResNetSettings
from scanmix.training import RunSettings, resolve
from scanmix.training.settings import NEWER, as_stored

STORED = Path(__file__).parents[1] / "stored" / "0.1.0"
PUBLISHED = str(Path(__file__).parents[1] / "published.toml")


def nested(key: str, value: Any) -> Table:
    for part in reversed(key.split(".")):
        value = {part: value}
    table: Table = value
    return table


def run_of(method: str, **overrides: Any) -> RunSettings:
    """Settings of a method without a recipe, on images."""
    return resolve(method, "some-data", None if method != "scanmix" else PUBLISHED, overrides)


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_setting_exists_and_takes_its_old_value(name: str) -> None:
    method, _, key = name.partition(".")
    assert key in set(dotted_keys(METHODS[method]))
    assert flatten(dump(build(METHODS[method], nested(key, NEWER[name]), where="test")))[key] == NEWER[name]


@pytest.mark.parametrize("name", NEWER)
def test_at_its_old_value_it_is_no_part_of_the_hash_and_at_another_it_is(name: str) -> None:
    method, _, key = name.partition(".")
    usual = run_of(method)
    old = replace(usual, settings=merge(usual.settings, nested(key, NEWER[name])))
    assert f"settings.{key}" not in flatten(old.hashed_settings())
    other = {False: True, "strong": "weak", "running": "batch"}.get(NEWER[name], 0.01)
    new = replace(usual, settings=merge(usual.settings, nested(key, other)))
    assert flatten(new.hashed_settings())[f"settings.{key}"] == other
    assert old.config_hash() != new.config_hash()


@pytest.mark.parametrize("name", NEWER)
def test_a_file_without_it_is_read_with_its_old_value_and_one_with_it_as_it_is(name: str) -> None:
    method, _, key = name.partition(".")
    stored: Table = {"method": method, "settings": {"epochs": 3}, "network": {"hidden": [4]}}
    assert flatten(as_stored(stored)["settings"])[key] == NEWER[name]
    assert as_stored(stored)["network"] == {"hidden": [4]}
    told = stored | {"settings": nested(key, "told")}
    assert flatten(as_stored(told)["settings"])[key] == "told"
    assert stored == {"method": method, "settings": {"epochs": 3}, "network": {"hidden": [4]}}, "left as it was"


@pytest.mark.parametrize("table", [{}, {"method": 3}, {"method": "ssr", "settings": 3, "network": "none"}])
def test_a_damaged_file_is_left_to_the_reader(table: Table) -> None:
    assert as_stored(table) == table


def test_networks_of_older_files_have_no_batch_norm_after_the_first_convolution() -> None:
    old: Table = {"widths": [4, 8], "blocks": [1, 1]}
    assert stored_network(old) == old | {"stem_norm": False}
    assert stored_network(old | {"stem_norm": True}) == old | {"stem_norm": True}
    for other in ({"hidden": [4]}, {"kind": "resnet", "widths": [4]}, {"kind": "timm", "name": "x"}):
        assert stored_network(other) == other


def test_the_hash_of_a_network_without_it_is_the_older_one() -> None:
    small = PreActResNetSettings(widths=(4, 8), blocks=(1, 1), stem_norm=False)
    assert hashed_network(small) == {
        "widths": (4, 8), "blocks": (1, 1), "stem_kernel": 3, "stem_stride": 1, "final_norm": False,
    }  # fmt: skip
    assert hashed_network(replace(small, stem_norm=True))["stem_norm"] is True
    for other in (ResNetSettings(kind="resnet"), MlpSettings(hidden=(4,))):
        assert encoders.NEWER.keys().isdisjoint(hashed_network(other))


def test_the_config_hash_with_it_differs_and_without_it_has_no_such_key() -> None:
    published = run_of("cross_entropy", network={"widths": [4], "blocks": [1], "stem_norm": True})
    small = run_of("cross_entropy", network={"widths": [4], "blocks": [1], "stem_norm": False})
    assert published.hashed_settings()["network"]["stem_norm"] is True
    assert "stem_norm" not in small.hashed_settings()["network"]
    assert published.config_hash() != small.config_hash()


@pytest.mark.parametrize(
    ("method", "key", "then", "now"),
    [
        ("elr_plus", "clamp", 1e-4, 0.0),
        ("ssr", "include_self", False, True),
        ("ssr_plus", "include_self", False, True),
        ("mentormix", "weight_statistics", "running", "batch"),
        ("scan_dividemix", "warmup_view", "strong", "strong"),
        ("scanmix", "propagate_classes", False, False),
    ],
)
def test_a_run_of_0_1_0_goes_on_as_it_began(method: str, key: str, then: Any, now: Any) -> None:
    settings = scanmix.open_run(STORED / "states" / method).settings
    assert settings.settings[key] == then
    assert dump(METHODS[method]())[key] == now


def test_a_run_and_a_model_of_0_1_0_have_the_network_of_then() -> None:
    run = scanmix.open_run(STORED / "runs" / "image")
    assert isinstance(run.settings.network, PreActResNetSettings) and not run.settings.network.stem_norm
    network = run.model.network
    assert isinstance(network, PreActResNetSettings) and not network.stem_norm
