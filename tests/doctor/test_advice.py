"""Suggested settings are ones the methods take, fit the data, and read back as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from scanmix.config import dump, flatten
from scanmix.data.examples import Examples
from scanmix.doctor.advice import advise, as_recipe
from scanmix.methods import METHODS
from scanmix.training import resolve


def made(count: int, classes: int = 3, side: int = 32, channels: int = 3, flip: bool = True) -> Examples:
    return Examples(
        images=torch.zeros(1, channels, side, side, dtype=torch.uint8).expand(count, -1, -1, -1),
        labels=torch.arange(count) % classes,
        class_names=tuple(map(str, range(classes))),
        ids=tuple(map(str, range(count))),
        flip=flip,
    )


def keys(examples: Examples, method: str = "scanmix") -> dict[str, Any]:
    lines = advise(examples, method, accelerated=False)
    assert len({line.key for line in lines}) == len(lines) and all(line.why for line in lines)
    return {line.key: line.value for line in lines}


SETS = [
    made(60),
    made(3),
    made(25_000, classes=200),
    made(5000, side=96),
    made(1500, 10, 8, 1, flip=False),
    made(300, 150),
]


@pytest.mark.parametrize("examples", SETS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_that_is_written_is_the_one_that_was_advised(
    method: str, examples: Examples, tmp_path: Path
) -> None:
    lines = advise(examples, method, accelerated=False)
    (tmp_path / "mine.toml").write_text(as_recipe(lines, method, "A recipe."), encoding="utf-8")
    read = resolve(None, "data", str(tmp_path / "mine.toml"))
    sections = {"network": dump(read.network), "views": dump(read.views)}
    values = {**flatten(read.settings), **flatten(sections)}
    assert read.method == method and lines
    assert {line.key: values[line.key] for line in lines} == {line.key: line.value for line in lines}
    for line in lines:
        assert line.why in as_recipe(lines, method, "A recipe.")


def test_more_neighbors_than_a_class_has_images_are_not_advised() -> None:
    assert keys(made(60))["num_neighbors"] == 10 and keys(made(4))["num_neighbors"] == 1
    assert "num_neighbors" not in keys(made(150)) and "num_neighbors" not in keys(made(60), "dividemix")


def test_what_depends_on_the_images() -> None:
    gray, large, many = keys(made(1500, 10, 8, 1, flip=False)), keys(made(5000, side=96)), keys(made(25_000, 200))
    assert gray["network.widths"] == [64, 128] and gray["views.cutout"] == 3 and gray["views.jitter"][2:] == [0.0, 0.0]
    assert "views.flip" not in gray and large["views.flip"] is True and "views.jitter" not in large
    assert large["network.stem_stride"] == 4 and "views.cutout" not in large
    assert many["pretrain.epochs"] == 40 < large["pretrain.epochs"] == 100
    assert "pretrain.contrast_temperature" not in many and many["clustering.batch_size"] >= 200


def test_many_images_on_an_accelerator_are_what_the_published_settings_are_for() -> None:
    assert advise(made(20_000), "scanmix", accelerated=True) == ()
    assert advise(made(19_999), "scanmix", accelerated=True) and advise(made(20_000), "scanmix", accelerated=False)
