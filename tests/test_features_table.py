"""The table of features: which pictures are taken, how they are stored, and what the page says."""

from pathlib import Path

import numpy as np

from results import features
from results.rows import read_rows


def test_as_many_of_each_class_are_drawn() -> None:
    labels = np.repeat([0, 1, 2], 40)[np.random.default_rng(0).permutation(120)]
    chosen = features.drawn(labels, 10, seed=0)
    assert chosen == sorted(set(chosen)) and np.bincount(labels[chosen]).tolist() == [10, 10, 10]
    assert chosen == features.drawn(labels, 10, seed=0) != features.drawn(labels, 10, seed=1)


def test_files_lie_in_the_folder_of_their_label(tmp_path: Path) -> None:
    features.write_pictures([b"a", b"b", b"c"], [0, 2], ["cat", "dog"], tmp_path / "photos")
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert found == {"photos/cat/00000.jpg": b"a", "photos/dog/00002.jpg": b"c"}


def test_the_page_has_a_row_for_each_method(tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    for seed, accuracy in ((0, 0.7), (1, 0.72)):
        task = features.Task("cifar10", "worse", "propagate", "lite0", seed)
        features.add({**task._asdict(), "count": 3000, "wrong": 0.4, "accuracy": accuracy, "ap": 0.9, "estimated": 0.3,
                      "low": 0.1, "high": 0.5, "core_seconds": 100.0}, path)  # fmt: skip
    task = features.Task("clothing-small", "none", "cross_entropy", "pixels", 0)
    features.add({**task._asdict(), "count": 10, "wrong": 0.0, "accuracy": 0.6, "ap": float("nan"), "estimated": 0.1,
                  "low": 0.0, "high": 0.2, "core_seconds": 200.0}, path)  # fmt: skip
    text = features.page(read_rows(path))
    assert "| propagate, lite0 | 2 | 71.0 ± 1.4 | 40.0 ± 0.0 | 30.0 ± 0.0 | 90.0 ± 0.0 | 100 |" in text
    assert "## clothing-small, its own labels" in text
    assert "| cross_entropy, pixels | 1 | 60.0 | 0.0 | 10.0 |  | 200 |" in text
