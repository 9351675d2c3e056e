"""Labels and examples as people hold them: taken as they are meant, or refused by row in one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanmix.config import UserError
from scanmix.data.given import as_array, check_labels, decoded, file_names, form_of


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (["a", None, "b", None], "y has 2 missing labels, first row 1; leave such rows out of X and y"),
        ([1, 2, float("nan")], "y has 1 missing label, first row 2"),
        (np.array([1.0, np.nan, np.nan]), "y has 2 missing labels, first row 1"),
        (["a", float("nan")], "y has 1 missing label, first row 1"),
        (np.array(["2020", "NaT"], dtype="datetime64[Y]"), "y has 1 missing label, first row 1"),
        ([1, 2, "cat"], "y mixes numbers and texts, 1 in row 0 and 'cat' in row 2; make them alike"),
        (np.array(["cat", 1], dtype=object), "y mixes texts and numbers, 'cat' in row 0 and 1 in row 1"),
        ([1, b"a"], "y mixes numbers and values of the type bytes"),
        ([0.0, 0.5, 1.0], "Unknown label type: y has 0.5 in row 1; classes are texts or whole numbers"),
        (np.array([1, np.inf]), "y has inf in row 1"),
        ([{}, {}], "y has values of the type dict, {} in row 0"),
        (np.array([b"a", b"b"]), "y: .* bytes"),
    ],
)
def test_labels_that_are_none_are_told_by_row(y: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_labels(y)


def test_what_pandas_writes_for_missing_is_missing() -> None:
    pandas = pytest.importorskip("pandas")
    for y in (
        pandas.Series(["a", pandas.NA, "b"]), pandas.Series([1, None, 2], dtype="Int64"), ["a", pandas.NA, "b"],
        pandas.Series(["a", None, "b"], dtype="category"), pandas.Series([True, None, False], dtype="boolean"),
        [1, pandas.NaT, 2], pandas.Series(pandas.to_datetime(["2020-01-01", None, "2020-01-02"])),
    ):  # fmt: skip
        with pytest.raises(UserError, match="y has 1 missing label, first row 1"):
            check_labels(y)


@pytest.mark.parametrize(
    "y", [[0, 1, 1], [0.0, 1.0], [True, False], ["a", "b"], np.array([2, 1], dtype=object), (1, 2)]
)
def test_labels_keep_their_kind(y: Any) -> None:
    assert check_labels(y).tolist() == list(y)
    assert check_labels(y).dtype == np.array(list(y)).dtype or isinstance(y, np.ndarray)


def test_pandas_labels_are_taken() -> None:
    pandas = pytest.importorskip("pandas")
    for y in (pandas.Series(["a", "b"], dtype="category", index=[7, 3]), pandas.Series(["a", "b"])):
        assert check_labels(y).tolist() == ["a", "b"]
    assert check_labels(pandas.Series([1, 2], dtype="Int64")).tolist() == [1, 2]


def ragged(*sides: int) -> np.ndarray:
    found = np.empty(len(sides), dtype=object)
    for i, side in enumerate(sides):
        found[i] = np.zeros((8, side))
    return found


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ([np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((8, 9))], r"\(8, 8\) in row 0 and \(8, 9\) in row 2; resize"),
        (ragged(8, 8, 9), r"\(8, 8\) in row 0 and \(8, 9\) in row 2; resize images to one size, or give files"),
        ([[1, 2], [3]], r"\(2,\) in row 0 and \(1,\) in row 1"),
        ([[1, 2], [3, [4, 5]]], "row 1 of X has parts of different lengths"),
        ([["a.png"], ["b.png"]], r"X holds 'a.png' in a column: if these are file names, give X.ravel\(\)"),
        (np.array([["a.png"], ["b.png"]]), "X holds 'a.png' in a column"),
        (np.array([[Path("a.png")], [Path("b.png")]]), "X holds 'a.png' in a column"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_told(X: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        form_of(X)


def test_a_column_of_a_frame_is_told() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UserError, match=r"X holds 'w4/0.png' in a column"):
        form_of(pandas.DataFrame({"path": ["w4/0.png", "w4/1.png"]}))
    assert form_of(pandas.Series(["a.png", "b.png"])) == "files"
    assert form_of(pandas.DataFrame({"a": [1, 2]})) == "vectors"


@pytest.mark.parametrize(
    ("X", "form"),
    [
        (["a.png"], "files"), ((Path("a.png"),), "files"), (np.array(["a.png"]), "files"), ([[1, 2]], "vectors"),
        (np.zeros((2, 3)), "vectors"), ([["1"], ["2"]], "vectors"), ([], "vectors"), (np.zeros((2, 3, 3)), "images"),
        ([np.zeros((3, 3))], "images"), (ragged(8, 8), "images"), ([Image.new("L", (3, 3))], "PIL images"),
    ],
)  # fmt: skip
def test_forms(X: Any, form: str) -> None:
    assert form_of(X) == form


def test_arrays_of_arrays_become_one() -> None:
    assert as_array(ragged(8, 8)).shape == (2, 8, 8)
    whole = np.zeros((2, 3))
    assert as_array(whole) is whole


def test_images_of_different_kinds_are_one_array() -> None:
    color = decoded([Image.new("L", (4, 4), 7), Image.new("RGB", (4, 4), (1, 2, 3))])
    assert color.shape == (2, 4, 4, 3) and color[0].max() == color[0].min() == 7
    with pytest.raises(UserError, match=r"\(4, 4\) and \(5, 4\) \(rows 0 and 1\); resize them, or give files"):
        decoded([Image.new("L", (4, 4)), Image.new("L", (4, 5))])
    with pytest.raises(UserError, match="row 1 of X is not an image, as the first is, but ndarray"):
        decoded([Image.new("L", (4, 4)), np.zeros((4, 4))])  # type: ignore[list-item]
    with pytest.raises(UserError, match="row 1 of X cannot be read: floating point pixels from 0 to 300"):
        decoded([Image.new("L", (2, 1)), Image.fromarray(np.array([[0, 300]], dtype="float32"))])


def test_every_row_must_name_a_file() -> None:
    assert file_names(["a", Path("b")]) == ["a", "b"]
    with pytest.raises(UserError, match="row 1 of X is no file name, as the first is, but nan"):
        file_names(["a", float("nan")])


def test_columns_of_labels_are_flattened_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="column-vector"):
        assert check_labels([[1], [2]]).tolist() == [1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="1d array"):
            check_labels([[1, 2], [2, 1]])
