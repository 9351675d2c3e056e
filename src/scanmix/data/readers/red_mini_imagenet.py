"""Red Mini-ImageNet (Jiang et al. 2020, Controlled Noisy Web Labels): ImageNet images, some replaced by web images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanmix.config import unknown_name
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition
from scanmix.data.readers.listed import read_list, read_names, require, tell, top_folder, warn_unless
from scanmix.data.readers.pairs import Entry, Pair, to_examples
from scanmix.files import reading

HOW = (
    "Get dataset.zip of Controlled Noisy Web Labels (https://google.github.io/controlled-noisy-web-labels) and unpack "
    "it: mini-imagenet/ with split/, all_images/ and validation/, and mini-imagenet-annotations.json beside it."
)
COUNTS = {
    "0.0": 50_000, "0.05": 50_000, "0.1": 50_000, "0.15": 50_000, "0.2": 50_000, "0.3": 49_985, "0.4": 50_010,
    "0.5": 49_962, "0.6": 50_000, "0.8": 50_008,
}  # fmt: skip
"""Noise level -> published number of training images."""
CLASSES, SIDE, TESTED = 100, 32, 5000
TOLERANCE = 0.02
"""How far the share of wrong labels may be from the noise level without a warning."""
ANNOTATIONS = "mini-imagenet-annotations.json"


def read_red_mini_imagenet(root: str | Path | None, level: str, size: int | None = None) -> Pair:
    """Read the training images of one noise level (0.4) and the clean validation images, 32x32 by default.

    The labels of web images were judged wrong by people, and their right labels are unknown: their true label is
    `OPEN_SET`. All other images are those of ImageNet. Shape: images (N, 3, size, size) uint8.

    Raises:
        UserError: there is no such level, a file is missing, or a line of a list is wrong.
    """
    if level not in COUNTS:
        known = [f"red-mini-imagenet:{one}" for one in COUNTS]
        raise unknown_name("noise level", f"red-mini-imagenet:{level}", known)
    top = top_folder("red-mini-imagenet", root, HOW)
    top = top / "mini-imagenet" if (top / "mini-imagenet").is_dir() else top
    split, validation = f"split/red_noise_nl_{level}", "split/clean_validation"
    folders = [] if (top / "0").is_dir() else ["all_images", "validation"]  # else the layout of FaMUS
    require("red-mini-imagenet", top, [split, validation, *folders], HOW)
    listed = read_list(top / split, CLASSES)
    web = _web_ids(top)
    by_label = not (top / "all_images").is_dir()
    train = [
        Entry(
            f"train/{name}",
            top / str(label) / name if by_label else top / "all_images" / name,
            label,
            None if web is None else OPEN_SET if Path(name).stem in web else label,
        )
        for name, label in listed
    ]
    test = [
        Entry(f"validation/{name}", _validation_path(top, name, label), label, label)
        for name, label in read_list(top / validation, CLASSES)
    ]
    warn_unless(f"training images in {split}", len(train), COUNTS[level])
    warn_unless(f"images in {validation}", len(test), TESTED)
    train_set, test_set = to_examples("red-mini-imagenet", _class_names(top), train, test, size or SIDE, channels=3)
    return _reported(train_set, float(level)), test_set


def _reported(train: Examples, level: float) -> Examples:
    if train.true_labels is None:
        return train
    report = NoiseReport(
        kind="web",
        asked_rate=level,
        actual_rate=changed_share(train.true_labels, train.labels),
        seed=None,
        transition=measure_transition(train.true_labels, train.labels, train.num_classes),
    )
    share = "share of wrong labels in red-mini-imagenet:"
    warn_unless(f"{share}{level:g}", round(report.actual_rate, 3), level, within=TOLERANCE)
    return dataclasses.replace(train, noise=report)


def _validation_path(top: Path, name: str, label: int) -> Path:
    inside = top / "validation" / str(label) / name
    return inside if inside.parent.is_dir() else top / str(label) / name


def _class_names(top: Path) -> tuple[str, ...]:
    """Return the names in class_name.txt, or numbers if the file is missing or has another number of names."""
    path = top / "class_name.txt"
    names = read_names(path) if path.is_file() else []
    whole = len(names) == CLASSES and len(set(names)) == CLASSES
    return tuple(names) if whole else tuple(str(label) for label in range(CLASSES))


def _web_ids(top: Path) -> set[str] | None:
    """Return the ids of the web images; None, with a warning, if the annotations are missing."""
    path = next((place for place in (top / ANNOTATIONS, top.parent / ANNOTATIONS) if place.is_file()), None)
    if path is None:
        tell(f"{ANNOTATIONS} is neither in {top} nor beside it, so it is not known which labels are wrong")
        return None
    with reading(path, "get it again, or delete it to train without"):
        try:
            listed: Sequence[Any] = json.loads(path.read_text(encoding="utf-8"))["data"]
            return {str(item[0]["image/id"]) for item in listed}
        except (KeyError, TypeError, IndexError):
            raise ValueError("it does not list image/id under the key data") from None
