"""Small runs of every kind, each trained once."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import scanmix

SMALL = {"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2}
STEPS: dict[str, dict[str, Any]] = {
    "cross_entropy": {"epochs": 3},
    "scan": {"pretrain": {"epochs": 1}, "clustering": {"epochs": 1}, "num_neighbors": 3},
    "scanmix": {
        "epochs": 4, "warmup": 1, "mild_warmup": 0, "pretrain": {"epochs": 1}, "clustering": {"epochs": 1},
        "num_neighbors": 3, "minimum_steps": 1,
    },
}  # fmt: skip
Trained = Callable[[str], Path]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANMIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def trained(cache_folder: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train a method on few digits, half of them with a label drawn at random, and return its folder."""

    @cache
    def train(method: str) -> Path:
        examples, test = scanmix.load("digits", per_class=8, limit_test=30)
        noisy = scanmix.add_noise(examples, "symmetric", rate=0.5)
        folder = tmp_path_factory.mktemp("runs") / method
        scanmix.train(noisy, test=test, method=method, out=folder, threads=1, network=SMALL, **STEPS[method])
        return folder

    return train
