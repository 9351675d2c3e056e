"""Read pickled arrays of numbers without letting the pickle run any code."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scanmix.config import UserError
from scanmix.files import reading

WHOLE_NUMBERS = frozenset(("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"))


class RefusedError(Exception):
    """A pickle asked for an object that arrays of numbers do not need."""


class PlainType:
    """The description of a pickled NumPy type, kept as data."""

    def __init__(self, code: object = None, *_: object) -> None:
        """Store the type code; NumPy's other two arguments do not describe the bytes."""
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Store the byte order."""
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.code = (order if order in "<>" else "|") + self.code


class PlainArray:
    """The description of a pickled NumPy array; NumPy's own unpickling code never runs."""

    def __init__(self, *_: object) -> None:
        """Start empty, as NumPy's own placeholder does."""
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Store (version, shape, type, column order, bytes)."""
        self.state = state

    def to_numpy(self) -> np.ndarray:
        """Return the array, of a whole-number type. Shape: -> (N, ...) as stored.

        Raises:
            ValueError: the type is another, or the size does not fit the bytes.
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

    def to_object(self) -> Any:
        """Return the content of an array of one Python object, as `np.save` writes a dictionary; else None."""
        if len(self.state) != 5 or self.state[1] != () or not isinstance(self.state[4], list):
            return None
        return next(iter(self.state[4]), None)


class _Latin1:
    """Encodes text. It is not a function because a pickle could set attributes of a function for the whole process."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise RefusedError(f"the encoding {encoding}")
        return text.encode("latin-1")


class _FromBuffer:
    """Makes an array of its bytes; not a function for the same reason as `_Latin1`."""

    __slots__ = ()

    def __call__(self, raw: object, kind: PlainType, shape: object, order: str) -> PlainArray:
        array = PlainArray()
        array.__setstate__((1, shape, kind, order == "F", raw))
        return array


# Every name that the pickle of an array may ask for, of old and new NumPy, and the harmless object it gets instead.
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): PlainType,
    ("numpy.core.multiarray", "_reconstruct"): PlainArray,
    ("numpy._core.multiarray", "_reconstruct"): PlainArray,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer(),
    ("_codecs", "encode"): _Latin1(),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise RefusedError(f"{module}.{name}")
        return ALLOWED[module, name]


def whole_numbers(part: Any, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Return a list or a `PlainArray` of whole numbers as an array of its own type. Shape: -> (N, ...) as stored.

    Args:
        part: the list or the array.
        low: smallest number that is allowed, if `high` is given too.
        high: largest number that is allowed, if `low` is given too.

    Raises:
        TypeError: `part` is something else.
        ValueError: it holds other values; says which.
    """
    if not isinstance(part, PlainArray | list | tuple):
        raise TypeError("an array is missing")
    numbers = part.to_numpy() if isinstance(part, PlainArray) else np.asarray(part)
    if numbers.dtype.kind not in "iu" and numbers.size:  # of texts, with a fraction, or too large for any type
        raise ValueError("not whole numbers of 64 bits")
    if low is not None and high is not None and numbers.size and (numbers.min() < low or numbers.max() > high):
        raise ValueError(f"numbers from {numbers.min()} to {numbers.max()} in place of {low} to {high}")
    return numbers


def read_pickle(path: Path, what: str, address: str, raw: bytes | None = None) -> dict[Any, Any]:
    """Read a pickled dictionary of numbers, strings, lists and arrays (`PlainArray`); refuse anything else.

    Args:
        path: the file.
        what: what the file should be, for errors.
        address: where to get it, for errors.
        raw: the bytes of the pickle, if it is only a part of the file.

    Raises:
        UserError: the file cannot be read, is damaged, or asks for any other object.
    """
    with reading(path, f"get it again from {address}"):
        packed = path.read_bytes() if raw is None else raw
    try:
        content = _ArrayUnpickler(io.BytesIO(packed), encoding="bytes").load()
    except RefusedError as error:
        raise UserError(
            f"{path} is refused: it asks for {error}, which {what} never does; get it from {address}."
        ) from None
    except Exception:  # a damaged pickle can raise errors of nearly any type
        raise UserError(f"{path} is truncated or not {what}; get it again from {address}.") from None
    content = content.to_object() if isinstance(content, PlainArray) else content
    if not isinstance(content, dict):
        raise UserError(f"{path} is not {what}; get it again from {address}.")
    return content
