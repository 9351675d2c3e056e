"""Arrays in `.npy` files, read without pickled objects, which could run code. Needs no PyTorch.

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
"""Bytes of pixels or features that are held in memory; more lie on the disk. `SCANMIX_IN_MEMORY` says otherwise."""

CHUNK = 65_536
"""Rows that are looked at together."""

MAPPED: Literal["c"] = "c"
"""How NumPy opens what stays on the disk: pages are read when they are used, and a change never reaches the file."""


def stays_on_disk(size: int) -> bool:
    """Whether so many bytes of pixels are too many for memory.

    Raises:
        UserError: `SCANMIX_IN_MEMORY` is no number.
    """
    given = os.environ.get("SCANMIX_IN_MEMORY", str(IN_MEMORY))
    try:
        return size > float(given)
    except ValueError:
        raise UserError(f"SCANMIX_IN_MEMORY must be a number of bytes, such as 8e9, not {given!r}") from None


def read_array(path: Path) -> np.ndarray:
    """Read the one array of a `.npy` file; one too large for memory is read page by page as it is used.

    Raises:
        UserError: it cannot be read, holds Python objects (which could run code) or named fields, or is something
            else: an archive of several arrays, a file of PyTorch, a table.
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
        except Exception as error:  # its header is parsed by Python itself, which raises whatever it likes
            raise UserError(
                f"{path} cannot be read as an array without pickled objects, so it is no plain .npy: {in_words(error)}"
            ) from None
    if array.dtype.names is not None or array.dtype.kind == "V":
        raise UserError(f"{path} holds records ({array.dtype}); save plain numbers or texts with np.save.")
    return array


def _what_else(path: Path) -> str:
    """What a file is or holds that does not begin as a `.npy` does; nothing where it does, or where nobody can tell."""
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
    text = head.decode("utf-8", "ignore")  # the last letter may be cut
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
    """Read feature vectors, one a row. Shape: -> (N, D) float32; what float32 cannot hold is infinite.

    Raises:
        UserError: as `read_array`; DataError: it holds no numbers, or not in rows.
    """
    rows = read_array(path)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiub":
        raise DataError(f"{path} must hold numbers of shape (N, features), not {rows.dtype} of {rows.shape}.")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def finite_rows(rows: np.ndarray) -> np.ndarray:
    """Whether each row holds numbers alone, nothing infinite or missing. Shape: (N, D) -> (N,) bool."""
    parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))  # the answers of all would be N x D
    return np.concatenate([np.zeros(0, bool), *(np.isfinite(part).all(axis=1) for part in parts)])


def row_names(path: Path, count: int) -> list[str]:
    """Return what the rows of a file are called where no table names them: `embeddings/0` and so on."""
    return [f"{path.stem}/{row}" for row in range(count)]
