"""Arrays in `.npy` files, read without pickled objects, which could run code. Needs no PyTorch.

Legend: N rows, D features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanmix.config import DataError, UserError


def read_array(path: Path) -> np.ndarray:
    """Read the one array of a `.npy` file.

    Raises:
        UserError: it cannot be read, holds Python objects (which could run code), or is an archive of several.
    """
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"an array cannot be read from {path}: no such file") from None
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(
            f"{path} cannot be read as an array without pickled objects, so it is no plain .npy: {error}"
        ) from None
    if not isinstance(array, np.ndarray):  # an archive, whatever the file is called
        raise UserError(f"{path} holds several arrays; save the one with np.save.")
    return array


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
    finite: np.ndarray = np.isfinite(rows).all(axis=1)
    return finite


def row_names(path: Path, count: int) -> list[str]:
    """Return what the rows of a file are called where no table names them: `embeddings/0` and so on."""
    return [f"{path.stem}/{row}" for row in range(count)]
