"""Read arrays from `.npy` files, without pickled objects, which could run code. PyTorch is not needed.

Legend: N rows, D features.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from scanmix.config import DataError, UserError
from scanmix.files import in_words, reading

IN_MEMORY = 4_000_000_000
"""Bytes of pixels or features up to which they are held in memory; `SCANMIX_IN_MEMORY` overrides it."""

CHUNK = 65_536
"""Rows that are checked together."""

MAPPED: Literal["c"] = "c"
"""NumPy's mode for arrays that stay on the disk: pages are read when used, and changes are not written to the file."""


def stays_on_disk(size: int) -> bool:
    """Whether pixels or features of `size` bytes are too large for memory.

    Raises:
        UserError: `SCANMIX_IN_MEMORY` is not a number.
    """
    given = os.environ.get("SCANMIX_IN_MEMORY", str(IN_MEMORY))
    try:
        return size > float(given)
    except ValueError:
        raise UserError(f"SCANMIX_IN_MEMORY must be a number of bytes, such as 8e9, not {given!r}") from None


def read_array(path: Path) -> np.ndarray:
    """Read the array of a `.npy` file. Shape: -> (N, ...) as stored.

    An array too large for memory is read page by page as it is used.

    Raises:
        UserError: the file cannot be read, holds Python objects (which could run code) or named fields, or is an
            archive of several arrays, a file of PyTorch or a table.
    """
    if not path.exists():
        raise UserError(f"an array cannot be read from {path}: no such file")
    with reading(path):
        if other := _what_else(path):
            raise UserError(f"{path} cannot be read as an array: it {other}.")
        try:
            mode = MAPPED if stays_on_disk(path.stat().st_size) else None
            array: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # the header is parsed as Python code, with errors of any type
            raise UserError(
                f"{path} cannot be read as an array without pickled objects, so it is no plain .npy: {in_words(error)}"
            ) from None
    if array.dtype.names is not None or array.dtype.kind == "V":
        raise UserError(f"{path} holds records ({array.dtype}); save plain numbers or texts with np.save.")
    return array


def _what_else(path: Path) -> str:
    """Say what a file is if it does not begin like a `.npy`; "" if it does, or if that is unknown."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x93NUMPY"):
        return ""
    if not head:
        return "is empty"
    if head.startswith(b"PK"):
        if _is_of_pytorch(path):
            return "is a file of PyTorch; save the tensor with np.save(path, tensor.numpy())"
        return "holds several arrays, as an .npz does; save the one with np.save"
    if head.startswith(b"PAR1"):
        return "is a Parquet table; save the column with np.save"
    text = head.decode("utf-8", "ignore")  # the last character may be cut off
    if len(text.encode()) > len(head) - 4 and all(letter.isprintable() or letter.isspace() for letter in text):
        return "is text, such as a CSV; save its numbers or names with np.save"
    return ""


def _is_of_pytorch(path: Path) -> bool:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def read_rows(path: Path) -> np.ndarray:
    """Read feature vectors, one a row. Shape: -> (N, D) float32; numbers too large for float32 become infinite.

    Raises:
        UserError: as `read_array`.
        DataError: the array is not of numbers, is empty, or is not of two dimensions.
    """
    rows = read_array(path)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiub":
        raise DataError(f"{path} must hold numbers of shape (N, features), not {rows.dtype} of {rows.shape}.")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def finite_rows(rows: np.ndarray) -> np.ndarray:
    """Return which rows have no infinite number and no NaN. Shape: (N, D) -> (N,) bool."""
    parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))  # one mask of all would be N x D
    return np.concatenate([np.zeros(0, bool), *(np.isfinite(part).all(axis=1) for part in parts)])


def row_names(path: Path, count: int) -> list[str]:
    """Return ids for the rows of a file without names: `embeddings/0`, `embeddings/1` and so on."""
    return [f"{path.stem}/{row}" for row in range(count)]
