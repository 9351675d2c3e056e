"""Rows of numbers from `.npy` files, without PyTorch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scanmix
from scanmix.config import DataError
from scanmix.data.npy import finite_rows, read_rows, row_names


def test_rows_come_as_float32_and_what_it_cannot_hold_is_infinite(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.5, 2], [1e300, 3], [np.nan, -np.inf]]))
    rows = read_rows(tmp_path / "x.npy")
    assert rows.dtype == np.float32 and rows[0].tolist() == [1.5, 2.0] and np.isinf(rows[1, 0])
    assert finite_rows(rows).tolist() == [True, False, False]
    assert row_names(tmp_path / "x.npy", 2) == ["x/0", "x/1"]


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), np.array([["a"]]), np.zeros((1, 2), complex)]
)
def test_what_is_no_table_of_numbers_is_a_fault_of_the_data(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=r"numbers of shape \(N, features\)"):
        read_rows(tmp_path / "x.npy")


def test_an_array_is_read_where_there_is_no_torch(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    code = (
        f"import sys; sys.path.insert(0, {str(Path(scanmix.__file__).parents[1])!r}); sys.modules['torch'] = None; "
        "from pathlib import Path; from scanmix.data.npy import read_rows; "
        "assert read_rows(Path('x.npy')).shape == (2, 3)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
