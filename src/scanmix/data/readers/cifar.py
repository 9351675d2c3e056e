"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their python batches; no pickle gets to run anything."""

from __future__ import annotations

import io
import math
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.mappings import CIFAR100_CLASSES

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WHOLE_NUMBERS = frozenset(("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"))
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar.html"


def read_cifar10(root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Read CIFAR-10 from `root` or its sub-folder cifar-10-batches-py; by default from $SCANMIX_DATA.

    Shape: images (50000, 3, 32, 32) and (10000, 3, 32, 32) uint8, in the order of the batches.

    Raises:
        UserError: if the files are missing, broken, or ask for more than arrays.
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
        UserError: if the files are missing, broken, or ask for more than arrays.
    """
    folder = _find("cifar100", root, "cifar-100-python", ("train", "test"))
    return (
        _read("cifar100", [folder / "train"], "train", b"fine_labels", CIFAR100_CLASSES),
        _read("cifar100", [folder / "test"], "test", b"fine_labels", CIFAR100_CLASSES),
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
    parts = [_read_batch(path, key) for path in paths]
    labels = np.concatenate([labels for _, labels in parts])
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise UserError(f"{paths[0].parent} has labels outside 0..{len(class_names) - 1}: it is not {name}.")
    return Examples(
        images=torch.from_numpy(np.concatenate([images for images, _ in parts])),
        labels=torch.from_numpy(labels),
        class_names=class_names,
        ids=tuple(f"{name}/{split}/{i:05d}" for i in range(len(labels))),
        name=name,
    )


def _read_batch(path: Path, key: bytes) -> tuple[np.ndarray, np.ndarray]:
    content = read_pickle(path)
    # Python 2 wrote these files with byte-string keys; someone's re-written ones have text.
    parts = {name.encode() if isinstance(name, str) else name: part for name, part in content.items()}
    pixels, labels = parts.get(b"data"), parts.get(key)
    try:
        pixels = pixels.to_numpy() if isinstance(pixels, PlainArray) else pixels
        labels = labels.to_numpy() if isinstance(labels, PlainArray) else labels
        images = np.asarray(pixels, dtype=np.uint8).reshape(-1, 3, 32, 32)
        numbers = np.asarray(labels, dtype=np.int64).reshape(-1)
    except (TypeError, ValueError):
        raise UserError(f"{path} does not hold CIFAR's data and {key.decode()}; get it again.") from None
    if len(images) != len(numbers):
        raise UserError(f"{path} holds {len(images)} images but {len(numbers)} labels; get it again.")
    return images, numbers


class RefusedError(Exception):
    """A pickle asked for something that no array needs."""


class PlainType:
    """What a pickled numpy type says about itself, kept as data."""

    def __init__(self, code: object = None, *_: object) -> None:
        """Remember the type code; numpy's other two arguments say nothing about the bytes."""
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep the byte order."""
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.code = (order if order in "<>" else "|") + self.code


class PlainArray:
    """What a pickled numpy array says about itself; numpy's own unpickling code never runs."""

    def __init__(self, *_: object) -> None:
        """Start empty, as numpy's own placeholder does."""
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep (version, shape, type, column order, bytes)."""
        self.state = state

    def to_numpy(self) -> np.ndarray:
        """Return the array.

        Raises:
            ValueError: if it is not one of plain numbers or its size does not fit its bytes.
        """
        _, shape, kind, fortran, raw = self.state
        if not isinstance(kind, PlainType) or kind.code.lstrip("|<>") not in WHOLE_NUMBERS:
            raise ValueError("not an array of whole numbers")
        # Python 3 reads Python 2 byte strings as bytes, and writes bytes of old protocols as Latin-1 text.
        data = raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)
        flat = np.frombuffer(data, dtype=np.dtype(kind.code))
        if math.prod(shape) != flat.size:
            raise ValueError("size does not fit")
        return flat.reshape(shape, order="F" if fortran else "C")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"the encoding {encoding}")
    return text.encode("latin-1")


def _frombuffer(raw: object, kind: PlainType, shape: object, order: str) -> PlainArray:
    array = PlainArray()
    array.__setstate__((1, shape, kind, order == "F", raw))
    return array


# Every name the pickle of an array may ask for, old numpy and new, and the harmless thing it gets instead.
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): PlainType,
    ("numpy.core.multiarray", "_reconstruct"): PlainArray,
    ("numpy._core.multiarray", "_reconstruct"): PlainArray,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise RefusedError(f"{module}.{name}")
        return ALLOWED[module, name]


def read_pickle(path: Path) -> dict[Any, Any]:
    """Read a pickled dictionary of numbers, strings, lists and arrays (`PlainArray`); refuse anything else.

    Raises:
        UserError: if the file cannot be read or asks for any other object.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except RefusedError as error:
        raise UserError(
            f"{path} is refused: it asks for {error}, which no CIFAR batch does; get it from {ADDRESS}."
        ) from None
    except Exception:  # a broken pickle can raise nearly anything
        raise UserError(f"{path} is truncated or no CIFAR batch; get it again from {ADDRESS}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no CIFAR batch; get it again from {ADDRESS}.")
    return content
