"""A file of features that grows while they are computed, and how much of it is finished.

Legend: N pictures, U different ones, D features.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pydantic.dataclasses

from scanmix.config import STRICT, UserError
from scanmix.data.duplicates import equal_rows
from scanmix.files import read_json, reading, write_json, writing
from scanmix.files.npy import MAPPED
from scanmix.progress import Tick

CHUNK = 4096
"""Pictures whose features are checked together."""


class Distinct(NamedTuple):
    """Which pictures are different: each of them is numbered from 0 on, in the order of its first copy."""

    first: np.ndarray
    """(U,) position of the first copy of each."""
    places: np.ndarray
    """(N,) positions of all copies of picture 0, then of picture 1 and so on."""
    bounds: np.ndarray
    """(U + 1,) where in `places` the copies of each begin; the last is N."""

    def copies(self, start: int, stop: int) -> np.ndarray:
        """Return the positions of all copies of some pictures, in the order of these. Shape: -> (M,)."""
        found: np.ndarray = self.places[self.bounds[start] : self.bounds[stop]]
        return found

    def repeated(self, start: int, rows: np.ndarray) -> np.ndarray:
        """Return rows of pictures from number `start` on as rows of `copies`. Shape: (B, D) -> (M, D)."""
        return np.repeat(rows, np.diff(self.bounds[start : start + len(rows) + 1]), axis=0)


def find_distinct(digests: np.ndarray) -> Distinct:
    """Return which pictures are different, by their hashes. Shape: (N, 2) -> of N positions."""
    leader = np.arange(len(digests))
    for group in equal_rows(digests):
        leader[group] = group[0]
    first = np.unique(leader)
    places = np.argsort(leader, kind="stable")
    return Distinct(first, places, np.searchsorted(leader[places], np.append(first, len(digests))))


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Finished:
    """Content of the JSON file beside a file of features."""

    shape: tuple[int, int]
    """(N, D)."""
    spans: tuple[tuple[int, str], ...]
    """Pictures finished so far, and SHA-256 of the rows of those that were added; in their order."""


class FeatureFile:
    """Rows of a `.npy` file, (N, D) float16, which are finished picture by picture.

    The file has its full length from the first row on. The JSON file beside it says which pictures are finished; it is
    written after their rows have reached the disk.
    """

    def __init__(
        self, path: Path, distinct: Distinct, shape: tuple[int, int], spans: Sequence[tuple[int, str]]
    ) -> None:
        """Go on with a file; `created` and `opened` make one. Shape: of the file, (N, D)."""
        self.path, self.distinct, self.shape, self.spans = path, distinct, shape, list(spans)
        self._written, self._digest = self.done, hashlib.sha256()

    @classmethod
    def created(cls, path: Path, distinct: Distinct, width: int) -> Self:
        """Begin a file of D = `width` features, of which nothing is finished.

        Raises:
            CannotWrite: the file cannot be written.
        """
        shape = (len(distinct.places), width)
        with writing(path):
            path.with_suffix(".json").unlink(missing_ok=True)
            with path.open("wb") as file:
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + 2 * math.prod(shape))
        return cls(path, distinct, shape, ())

    @classmethod
    def opened(cls, path: Path, distinct: Distinct, tick: Tick | None = None) -> Self | None:
        """Open a file that was begun before, and check what is finished of it; None if there is none that fits.

        What is damaged is no longer finished; a warning says so.

        Args:
            path: the `.npy` file.
            distinct: the pictures.
            tick: called with the number of pictures whose rows are checked.
        """
        if not path.with_suffix(".json").exists():
            return None
        try:
            with reading(path):
                finished = read_json(path.with_suffix(".json"), Finished)
                mapped = np.load(path, mmap_mode=MAPPED)
                fits = mapped.dtype == np.float16 and mapped.shape == finished.shape
                if not fits or len(mapped) != len(distinct.places):
                    raise ValueError(f"it holds {mapped.dtype} of {mapped.shape}")
                return cls(path, distinct, finished.shape, _intact(path, mapped, distinct, finished.spans, tick))
        except UserError as error:
            warnings.warn(f"{error}; the features are computed again", stacklevel=2)
            return None

    @property
    def done(self) -> int:
        """Number of finished pictures, sealed in the JSON file."""
        return self.spans[-1][0] if self.spans else 0

    @property
    def is_complete(self) -> bool:
        """Whether all pictures are finished."""
        return self.done == len(self.distinct.first)

    def append(self, rows: np.ndarray) -> None:
        """Write the features of the next pictures to the places of all their copies. Shape: (B, D) float16.

        Raises:
            CannotWrite: the file cannot be written.
        """
        stop = self._written + len(rows)
        places, rows = self.distinct.copies(self._written, stop), self.distinct.repeated(self._written, rows)
        ends = [*(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
        with writing(self.path), self.path.open("r+b") as file:
            start = 0
            for end in ends:  # each run of places that follow each other
                file.seek(2 * self.shape[1] * (int(places[start]) - self.shape[0]), os.SEEK_END)
                file.write(rows[start:end].tobytes())
                start = end
        self._digest.update(rows.tobytes())
        self._written = stop

    def seal(self) -> None:
        """Count all rows that were written as finished, once they are on the disk.

        Raises:
            CannotWrite: one of the files cannot be written.
        """
        if self._written == self.done:
            return
        with writing(self.path), self.path.open("r+b") as file:
            os.fsync(file.fileno())
        self.spans.append((self._written, self._digest.hexdigest()))
        write_json(self.path.with_suffix(".json"), {"shape": self.shape, "spans": self.spans})
        self._digest = hashlib.sha256()

    def mapped(self) -> np.ndarray:
        """Return the rows, read from the disk page by page. Shape: -> (N, D) float16."""
        with reading(self.path):
            rows: np.ndarray = np.load(self.path, mmap_mode=MAPPED)
            return rows


def _intact(
    path: Path, mapped: np.ndarray, distinct: Distinct, spans: Sequence[tuple[int, str]], tick: Tick | None
) -> list[tuple[int, str]]:
    """Return the spans up to the first one whose rows are not those that were written. Shape: `mapped` (N, D)."""
    found, begin = list[tuple[int, str]](), 0
    for end, known in spans:
        digest = hashlib.sha256()
        for start in range(begin, end, CHUNK):
            stop = min(end, start + CHUNK)
            digest.update(mapped[distinct.copies(start, stop)].tobytes())
            if tick is not None:
                tick(stop, spans[-1][0], "")
        if digest.hexdigest() != known:
            warnings.warn(f"{path} is damaged; the features from picture {begin} on are computed again", stacklevel=2)
            break
        found.append((end, known))
        begin = end
    return found
