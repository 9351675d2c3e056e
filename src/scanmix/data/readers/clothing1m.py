"""Clothing1M (Xiao et al. 2015): a million images from online shops, labeled by the words around them."""

from __future__ import annotations

from pathlib import Path

from scanmix.config import UserError
from scanmix.data.readers.listed import read_list, read_names, require, top_folder, warn_unless
from scanmix.data.readers.pairs import Entry, Pair, to_examples

HOW = (
    "Ask its authors (https://github.com/Cysu/noisy_label) and unpack images/ with noisy_label_kv.txt, "
    "clean_label_kv.txt and the key lists beside it, or in annotations/."
)
CLASS_NAMES = (
    "T-shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Down Coat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip
NOISY, CLEAN, TRAIN, TEST = (
    "noisy_label_kv.txt", "clean_label_kv.txt", "noisy_train_key_list.txt", "clean_test_key_list.txt",
)  # fmt: skip
COUNTS = {TRAIN: 1_000_000, TEST: 10_526}
SIDE = 256


def read_clothing1m(root: str | Path | None, size: int | None = None) -> Pair:
    """Read the million noisy training images and the clean test images, resized to 256x256 by default (section 4.2).

    Most training images have no clean label, so their true labels count as unknown.
    Shape: images (N, 3, size, size) uint8; images too large for memory are decoded once into a file of the cache.

    Raises:
        UserError: a file is missing, a line of a list is wrong, or a listed image has no label.
    """
    top = top_folder("clothing1m", root, HOW)
    lists = top / "annotations" if (top / "annotations").is_dir() else top
    require("clothing1m", lists, [NOISY, CLEAN, TRAIN, TEST], HOW)
    train = _entries(top, lists, TRAIN, NOISY)
    test = [entry._replace(true_label=entry.label) for entry in _entries(top, lists, TEST, CLEAN)]
    return to_examples("clothing1m", CLASS_NAMES, train, test, size or SIDE, channels=3)


def _entries(top: Path, lists: Path, keys: str, labels: str) -> list[Entry]:
    label_of = dict(read_list(lists / labels, len(CLASS_NAMES)))
    names = read_names(lists / keys)
    warn_unless(f"images in {keys}", len(names), COUNTS[keys])
    missing = next((name for name in names if name not in label_of), None)
    if missing is not None:
        raise UserError(f"{lists / keys} names {missing}, which has no label in {labels}")
    return [Entry(name, _path_of(top, name), label_of[name]) for name in names]


def _path_of(top: Path, name: str) -> Path:
    """Return the path of a listed image: below `images`, or without that folder, as DivideMix's code expects."""
    return top / name if (top / "images").is_dir() else top / name.removeprefix("images/")
