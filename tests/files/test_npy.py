"""Rows of numbers from `.npy` files, without PyTorch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import scanmix
from scanmix.config import DataError, UserError
from scanmix.files.npy import finite_rows, read_array, read_rows, row_names


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


def header(text: str, body: bytes = bytes(64)) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


PLAIN = "{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\x80\x04N.",
        b"\x93NUMPY\x09\x00abc",
        header(PLAIN.format(descr="'<f4'", shape="(True, 4)")),
        header(PLAIN.format(descr="'<f4'", shape="(4, 4)")[:-1]),
        header(PLAIN.format(descr="'<f4'", shape="(10000000000000000000000, 4)")),
        header(PLAIN.format(descr="'<f4'", shape="(1000000000000, 4)")),
        header(PLAIN.format(descr="'<f4'", shape="(5, 4)")),
        header(PLAIN.format(descr="'<f4'", shape="(" * 300 + ")" * 300)),
        header(PLAIN.format(descr="'|O'", shape="(4,)")),
        header(PLAIN.format(descr="[('a', '<f4'), ('b', '<i4')]", shape="(2,)")),
        header(PLAIN.format(descr="'|V8'", shape="(2,)")),
        header("\\" * 40),
        b"\xff\xfe" + bytes(9),
    ],
)
def test_every_damage_is_one_sentence_with_the_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npy") as told:
        read_array(tmp_path / "x.npy")
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_and_a_folder_are_not_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.npy")
    with pytest.raises(UserError, match="a file is needed"):
        read_array(tmp_path / "x.npy")


def test_no_rows_are_finite_rows() -> None:
    assert finite_rows(np.zeros((0, 3))).tolist() == []


def test_an_array_is_read_where_there_is_no_torch(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    code = (
        f"import sys; sys.path.insert(0, {str(Path(scanmix.__file__).parents[1])!r}); sys.modules['torch'] = None; "
        "from pathlib import Path; from scanmix.files.npy import read_rows; "
        "assert read_rows(Path('x.npy')).shape == (2, 3)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
