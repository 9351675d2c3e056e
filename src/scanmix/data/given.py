"""Checks of what a program passes as X and y: the form of X, the labels in y, images in memory.

Errors count rows from 0, as arrays do. Legend: N examples, H height, W width, D features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from scanmix.config import UserError
from scanmix.data.arrays import same_shape
from scanmix.data.decoding import upright, why_unreadable

Form = Literal["files", "PIL images", "images", "vectors"]
"""What X holds: names of files, PIL images, an array of images, or rows of numbers."""


def form_of(X: Any) -> Form:
    """Return what X holds, judged by its first element and its number of dimensions.

    Raises:
        UserError: X is not a list or an array, its rows differ in shape, or names of files stand in a column.
    """
    if isinstance(X, Mapping | set) and not hasattr(X, "shape"):  # some sparse arrays are mappings, too
        raise UserError(f"X must be rows, in an array or a list, not a {type(X).__name__}")
    if not hasattr(X, "shape"):
        return _form_of_list(X if isinstance(X, list | tuple) else np.asarray(X).tolist())
    if len(X.shape) == 1 and X.shape[0]:
        first = next(iter(X))
        if isinstance(first, str | os.PathLike | Image.Image | np.ndarray | list):
            return _form_of_list(list(X))
    if len(X.shape) == 2 and X.shape[1] == 1 and X.shape[0]:
        _refuse_file_names(X)
    return "images" if len(X.shape) > 2 else "vectors"


def as_array(X: Any) -> Any:
    """Turn a list, or an array of arrays, into one array; anything else is returned as it is."""
    several = isinstance(X, list | tuple) or (str(getattr(X, "dtype", "")) == "object" and len(X.shape) == 1)
    return np.asarray(list(X)) if several else X


def decoded(rows: Sequence[Image.Image], channels: int | None = None) -> np.ndarray:
    """Convert PIL images as files are decoded, with `decoding.upright`. Shape: -> (N, H, W) or (N, H, W, 3) uint8.

    Raises:
        UserError: a row cannot be read, is not an image, or has another size than the first.
    """
    found = []
    for row, image in enumerate(rows):
        if not isinstance(image, Image.Image):
            raise UserError(f"row {row} of X is not an image, as the first is, but {type(image).__name__}")
        try:
            found.append(np.asarray(upright(image, channels)))
        except Exception as error:  # decoders raise errors of any type on damaged images
            raise UserError(f"the image in row {row} of X cannot be read: {why_unreadable(error)}") from None
    return same_shape(found)


def file_names(X: Any) -> list[str]:
    """Return names of files as texts.

    Raises:
        UserError: a row is something else.
    """
    for row, name in enumerate(X):
        if not isinstance(name, str | os.PathLike):
            raise UserError(f"row {row} of X is no file name, as the first is, but {name!r}")
    return [os.fspath(name) for name in X]


def check_labels(y: Any) -> np.ndarray:
    """Return labels as an array. Shape: (N,) or (N, 1) texts or whole numbers -> (N,).

    Raises:
        UserError: labels are missing, texts and numbers are mixed, or a number is not whole.
        ValueError: y has another shape, or does not hold classes.
    """
    listed = isinstance(y, list | tuple)  # NumPy would turn numbers and missing values among texts into texts
    given: np.ndarray = column_or_1d(np.array(y, dtype=object) if listed else y, warn=True)
    missing = _missing(given)
    if missing.any():
        count = int(missing.sum())
        many = "label" if count == 1 else "labels"
        raise UserError(
            f"y has {count} missing {many}, first row {int(missing.argmax())}; leave such rows out of X and y"
        )
    if given.dtype == object and len(given):
        given = _of_one_kind(given)
        given = np.array(given.tolist()) if listed else given
    if given.dtype.kind == "f" and len(given):
        odd = ~np.isfinite(given) | (given != np.floor(given))
        if odd.any():
            row = int(odd.argmax())
            raise UserError(
                f"Unknown label type: y has {given[row]:g} in row {row}; classes are texts or whole numbers"
            )
    try:
        check_classification_targets(given)
    except TypeError as error:  # bytes
        raise UserError(f"y: {error}") from None
    return given


def _form_of_list(rows: Sequence[Any]) -> Form:
    if len(rows) == 0:
        return "vectors"
    if isinstance(rows[0], str | os.PathLike):
        return "files"
    if isinstance(rows[0], Image.Image):
        return "PIL images"
    first = _shape_of(rows[0], 0)
    for row, other in enumerate(rows):
        if _shape_of(other, row) != first:
            raise UserError(
                f"X must hold images or rows of one shape, not {first} in row 0 and {_shape_of(other, row)} in row "
                f"{row}; resize images to one size, or give files"
            )
    if first == (1,):
        _refuse_file_names(rows)
    return "images" if len(first) > 1 else "vectors"


def _shape_of(row: Any, place: int) -> tuple[int, ...]:
    try:
        return np.shape(row)
    except ValueError:
        raise UserError(f"row {place} of X has parts of different lengths; an array of numbers is needed") from None


def _refuse_file_names(column: Any) -> None:
    first = np.asarray(column[:1], dtype=object).ravel()[0]
    if isinstance(first, os.PathLike) or (isinstance(first, str) and not _is_number(first)):
        raise UserError(
            f"X holds {str(first)!r} in a column: if these are file names, give X.ravel(), or the one column of a frame"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _missing(given: np.ndarray) -> np.ndarray:
    """Return which labels are None, NaN, or the missing values of pandas and NumPy. Shape: (N,) -> (N,) bool."""
    if given.dtype.kind == "f":
        return np.asarray(np.isnan(given))
    if given.dtype.kind in "mM":
        return np.asarray(np.isnat(given))
    if given.dtype != object:
        return np.zeros(len(given), dtype=bool)
    return np.array([_is_missing(label) for label in given], dtype=bool)


def _is_missing(label: Any) -> bool:
    if isinstance(label, float | np.floating):
        return bool(np.isnan(label))
    return label is None or type(label).__name__ in ("NAType", "NaTType")


def _of_one_kind(given: np.ndarray) -> np.ndarray:
    """Check that all objects are texts, all are numbers or all are of one other type; numbers become a number array.

    Raises:
        UserError: types are mixed, or objects cannot be compared.
    """
    kinds = [_kind(label) for label in given]
    other = next((row for row, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise UserError(
            f"y mixes {kinds[0]} and {kinds[other]}, {given[0]!r} in row 0 and {given[other]!r} in row {other}; "
            "make them alike"
        )
    if kinds[0] in ("texts", "numbers"):
        return np.array(given.tolist()) if kinds[0] == "numbers" else given
    try:
        np.unique(given)
    except TypeError:
        raise UserError(f"y has {kinds[0]}, {given[0]!r} in row 0; texts or whole numbers are needed") from None
    return given


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "texts"
    if isinstance(label, int | float | np.number | np.bool_):
        return "numbers"
    return f"values of the type {type(label).__name__}"
