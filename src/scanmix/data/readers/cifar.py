"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their Python batches, whose pickles cannot run code here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.noise.mappings import CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from scanmix.data.readers.pickles import read_pickle, whole_numbers
from scanmix.files import reading

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar.html"


def read_cifar10(root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Read CIFAR-10 from `root` or its sub-folder cifar-10-batches-py; by default from $SCANMIX_DATA.

    Shape: images (50000, 3, 32, 32) and (10000, 3, 32, 32) uint8, in the order of the batches.

    Raises:
        UserError: if the files are missing or damaged, or their pickles ask for more than arrays.
    """
    batches = tuple(f"data_batch_{i}" for i in range(1, 6))
    folder = _find("cifar10", root, "cifar-10-batches-py", (*batches, "test_batch"))
    return (
        _read("cifar10", [folder / batch for batch in batches], "train", b"labels", CIFAR10_CLASSES),
        _read("cifar10", [folder / "test_batch"], "test", b"labels", CIFAR10_CLASSES),
    )


def read_cifar100(root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Read CIFAR-100, fine labels, from `root` or its sub-folder cifar-100-python; else from $SCANMIX_DATA.

    Shape: images (50000, 3, 32, 32) and (10000, 3, 32, 32) uint8.

    Raises:
        UserError: if the files are missing or damaged, or their pickles ask for more than arrays.
    """
    return _read_cifar100(root, b"fine_labels", CIFAR100_CLASSES)


def read_cifar100_coarse(root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Read CIFAR-100 as `read_cifar100` does, with its twenty superclasses as labels.

    Raises:
        UserError: as `read_cifar100`.
    """
    return _read_cifar100(root, b"coarse_labels", tuple(CIFAR100_SUPERCLASSES))


def _read_cifar100(root: str | Path | None, key: bytes, class_names: tuple[str, ...]) -> tuple[Examples, Examples]:
    folder = _find("cifar100", root, "cifar-100-python", ("train", "test"))
    return (
        _read("cifar100", [folder / "train"], "train", key, class_names),
        _read("cifar100", [folder / "test"], "test", key, class_names),
    )


def _find(name: str, root: str | Path | None, inner: str, files: Sequence[str]) -> Path:
    given = root if root is not None else os.environ.get("SCANMIX_DATA")
    if given is None:
        raise UserError(f"{name} needs root= (or SCANMIX_DATA), the folder that holds {inner}; get it from {ADDRESS}.")
    top = Path(given).expanduser()
    for folder in (top, top / inner, top / name, top / name / inner):
        if all((folder / file).is_file() for file in files):
            return folder
    raise UserError(f"{top} lacks {inner} with {', '.join(files)}; unpack the python version from {ADDRESS} there.")


def _read(name: str, paths: Sequence[Path], split: str, key: bytes, class_names: tuple[str, ...]) -> Examples:
    parts = [_read_batch(path, key, len(class_names)) for path in paths]
    labels = np.concatenate([labels for _, labels in parts])
    return Examples(
        images=torch.from_numpy(np.concatenate([images for images, _ in parts])),
        labels=torch.from_numpy(labels),
        class_names=class_names,
        ids=tuple(f"{name}/{split}/{i:05d}" for i in range(len(labels))),
        name=name,
    )


def _read_batch(path: Path, key: bytes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = read_pickle(path, "a CIFAR batch", ADDRESS)
    # Python 2 wrote these files with keys of bytes; copies written by Python 3 have keys of text.
    parts = {name.encode() if isinstance(name, str) else name: part for name, part in content.items()}
    most = num_classes - 1
    with reading(path, f"get it again from {ADDRESS}"):
        try:
            images = whole_numbers(parts.get(b"data"), 0, 255).astype(np.uint8, copy=False).reshape(-1, 3, 32, 32)
            numbers = whole_numbers(parts.get(key)).reshape(-1)
        except (TypeError, ValueError) as error:
            what = f"CIFAR's data and {key.decode()} ({error})"
            raise UserError(f"{path} does not hold {what}; get it again from {ADDRESS}.") from None
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) <= most:
        raise UserError(
            f"{path} has labels outside 0..{most}, {numbers.min()} to {numbers.max()}; get it again from {ADDRESS}."
        )
    if len(numbers) == 0:
        raise UserError(f"{path} holds no images; get it again from {ADDRESS}.")
    if len(images) != len(numbers):
        raise UserError(f"{path} holds {len(images)} images but {len(numbers)} labels; get it again from {ADDRESS}.")
    return images, numbers.astype(np.int64)
