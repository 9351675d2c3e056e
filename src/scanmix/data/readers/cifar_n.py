"""CIFAR-N (Wei et al. 2022): CIFAR-10 and CIFAR-100 with labels given by people on Amazon Mechanical Turk."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError, unknown_name
from scanmix.data.examples import Examples
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition
from scanmix.data.readers.cifar import read_cifar10, read_cifar100, read_cifar100_coarse
from scanmix.data.readers.listed import warn_unless
from scanmix.data.readers.pickles import read_pickle, whole_numbers
from scanmix.files import reading

ADDRESS = "https://github.com/UCSC-REAL/cifar-10-100n"


class LabelSet(NamedTuple):
    """One of the label sets in a file."""

    key: str
    clean: str
    """Key of the true labels."""
    wrong: float
    """Published share of wrong labels, 0..1."""


LABELS10 = {
    "aggre": LabelSet("aggre_label", "clean_label", 0.0901),  # the majority of the labels of three people
    "worse": LabelSet("worse_label", "clean_label", 0.4021),  # a wrong label of the three, if there is one
    "random1": LabelSet("random_label1", "clean_label", 0.1723),
    "random2": LabelSet("random_label2", "clean_label", 0.1812),
    "random3": LabelSet("random_label3", "clean_label", 0.1764),
}
"""Label sets of CIFAR-10_human.pt."""
LABELS100 = {
    "fine": LabelSet("noisy_label", "clean_label", 0.4020),
    "coarse": LabelSet("noisy_coarse_label", "clean_coarse_label", 0.2640),
}
"""Label sets of CIFAR-100_human.pt."""
OTHER_KEYS = {"noisy_label": "noise_label"}
"""Other name of a key in the `.npy` of CIFAR-100."""


def read_cifar10n(root: str | Path | None, variant: str) -> tuple[Examples, Examples]:
    """Read CIFAR-10 with the labels `aggre`, `worse`, `random1`, `random2` or `random3` of CIFAR-10_human.pt.

    Shape: as `read_cifar10`. The clean labels in the file are checked against CIFAR's own.

    Raises:
        UserError: a file is missing or damaged, its clean labels differ from CIFAR's, or there is no such label set.
    """
    train, test = read_cifar10(root)
    return _relabeled(train, root, LABELS10, variant), dataclasses.replace(test, name="cifar10n")


def read_cifar100n(root: str | Path | None, variant: str) -> tuple[Examples, Examples]:
    """Read CIFAR-100 with the labels `fine`, or `coarse` for its twenty superclasses, of CIFAR-100_human.pt.

    Shape: as `read_cifar100`.

    Raises:
        UserError: as `read_cifar10n`.
    """
    train, test = (read_cifar100_coarse if variant == "coarse" else read_cifar100)(root)
    return _relabeled(train, root, LABELS100, variant), dataclasses.replace(test, name="cifar100n")


def _relabeled(train: Examples, root: str | Path | None, known: dict[str, LabelSet], variant: str) -> Examples:
    """Return the images of CIFAR with the labels of people as given labels; those of CIFAR are the true labels."""
    old, name = train.name, f"{train.name}n"
    if variant not in known:
        raise unknown_name("label set", f"{name}:{variant}", [f"{name}:{label_set}" for label_set in known])
    wanted = known[variant]
    path = _find(f"CIFAR-{old.removeprefix('cifar')}_human", root)
    content = _read_human(path)
    clean, given = (_labels(content, key, path, train) for key in (wanted.clean, wanted.key))
    if not torch.equal(clean, train.labels):
        raise UserError(
            f"the clean labels in {path} are not those of {old} in its order ({int((clean != train.labels).sum())} "
            "differ): the .pt file is in the order of the python batches, the ..._ordered.npy beside it is not"
        )
    rate = changed_share(train.labels, given)
    warn_unless(f"share of wrong labels in {path.name}, {wanted.key}", round(rate, 4), wanted.wrong, within=0.001)
    report = NoiseReport(
        kind="human",
        asked_rate=None,
        actual_rate=rate,
        seed=None,
        transition=measure_transition(train.labels, given, train.num_classes),
    )
    return dataclasses.replace(train, name=name, labels=given, true_labels=train.labels, noise=report)


def _find(name: str, root: str | Path | None) -> Path:
    top = Path(root if root is not None else os.environ.get("SCANMIX_DATA", "")).expanduser()
    folders = (top, top / "data", top.parent, top / "cifar-10-100n" / "data")
    places = (folder / f"{name}{suffix}" for suffix in (".pt", ".npy") for folder in folders)
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise UserError(f"{name}.pt is not in {top} or its folder data; get it from {ADDRESS} and put it there")
    return found


def _read_human(path: Path) -> dict[str, Any]:
    """Read the pickle in the archive of `torch.save`, or after the header of `np.save`, without running code of it."""
    with reading(path, f"get it again from {ADDRESS}"):
        packed = path.read_bytes()
    try:
        raw = _pickle_in(packed)
    except Exception:  # a damaged archive can raise errors of nearly any type
        raise UserError(f"{path} is not a file of CIFAR-N; get it again from {ADDRESS}") from None
    content = read_pickle(path, "a file of CIFAR-N", ADDRESS, raw)
    return {name.decode() if isinstance(name, bytes) else str(name): part for name, part in content.items()}


def _pickle_in(raw: bytes) -> bytes:
    file = io.BytesIO(raw)
    if raw.startswith(np.lib.format.MAGIC_PREFIX):
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.read()
    with zipfile.ZipFile(file) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _labels(content: dict[str, Any], key: str, path: Path, train: Examples) -> Tensor:
    found = content.get(key, content.get(OTHER_KEYS.get(key, key)))
    try:
        numbers = whole_numbers(found).reshape(-1)
    except Exception:  # the file decides the shape and type of the array, so errors may be of any type
        numbers = np.empty(0, dtype=np.int64)
    if len(numbers) != len(train):
        raise UserError(f"{path} holds no {key} for {len(train)} images; get it again from {ADDRESS}")
    outside = np.flatnonzero((numbers < 0) | (numbers >= train.num_classes))
    if len(outside):
        raise UserError(
            f"{path}, {key}: label {numbers[outside[0]]} of image {outside[0]} is outside 0..{train.num_classes - 1}"
        )
    return torch.from_numpy(numbers.astype(np.int64))
