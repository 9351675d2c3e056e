"""Encoders in a hub's cache, found by the names of files."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from scanmix.features import at_hand as module
from scanmix.features.at_hand import SUGGESTED, at_hand


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine with both libraries."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return tmp_path / "hub"


def place(hub: Path, name: str, size: int = 10, version: str = "abc", **files: Any) -> Path:
    snapshot = hub / f"models--{name.replace('/', '--')}" / "snapshots" / version
    snapshot.mkdir(parents=True)
    if size:
        (snapshot / "model.safetensors").write_bytes(b"x" * size)
    for file, content in files.items():
        (snapshot / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    return snapshot


def test_there_is_none_where_there_is_no_cache() -> None:
    assert at_hand() == []


def test_the_best_family_comes_first_and_of_one_the_smallest(hub: Path) -> None:
    place(hub, "timm/resnet18.a1_in1k", 5)
    place(hub, "timm/vit_base_patch32_clip_224.openai", 30)
    place(hub, "timm/vit_large_patch14_dinov2.lvd142m", 90)
    small = place(hub, "timm/vit_small_patch14_dinov2.lvd142m", 20)
    found = at_hand()
    assert [encoder.name for encoder in found] == [
        "timm:vit_small_patch14_dinov2.lvd142m",
        "timm:vit_large_patch14_dinov2.lvd142m",
        SUGGESTED,
        "timm:resnet18.a1_in1k",
    ]
    assert found[0].place == f"timm:vit_small_patch14_dinov2.lvd142m@{small}/model.safetensors"
    assert found[0].bytes == 20


def test_what_is_no_encoder_of_pictures_is_left_out(hub: Path) -> None:
    pictures: dict[str, Any] = {"config": {"model_type": "dinov2"}, "preprocessor_config": {"image_mean": [0.5]}}
    whole = place(hub, "facebook/dinov2-base", **pictures)
    place(hub, "facebook/half", 0, **pictures)
    place(hub, "some/text-model", config={"model_type": "bert"})
    place(hub, "some/sounds", config={}, preprocessor_config={"feature_size": 1})
    place(hub, "some/list", config={}, preprocessor_config=["image_mean"])
    (hub / "models--broken").mkdir()
    (hub / "datasets--some--pictures").mkdir()
    assert [(encoder.name, encoder.place) for encoder in at_hand()] == [("hf:facebook/dinov2-base", f"hf:{whole}")]


def test_the_version_of_the_main_branch_is_taken(hub: Path) -> None:
    place(hub, "timm/resnet18.a1_in1k", 5, "aaa")
    main = place(hub, "timm/resnet18.a1_in1k", 6, "bbb")
    refs = hub / "models--timm--resnet18.a1_in1k" / "refs"
    refs.mkdir()
    (refs / "main").write_text("bbb")
    (found,) = at_hand()
    assert found.place.endswith(f"@{main}/model.safetensors") and found.bytes == 6


def test_a_missing_library_opens_nothing(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(hub, "timm/resnet18.a1_in1k")
    place(hub, "facebook/dinov2-base", config={}, preprocessor_config={"image_mean": [0.5]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else object())
    assert [encoder.name for encoder in at_hand()] == ["hf:facebook/dinov2-base"]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/home/x"}, "/home/x/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hub_has_it(
    variables: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(module._hub()) == wanted
