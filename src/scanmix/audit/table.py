"""The table of an audit: one row for each label, the most doubtful first.

Legend: N examples, C classes, K neighbors, P networks, T snapshots. All row arrays are sorted alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scanmix.audit.columns import TYPES
from scanmix.audit.decided import Checked, estimate_rate
from scanmix.audit.notebook import audit_html
from scanmix.audit.votes import NO_VOTES, VoteFindings
from scanmix.blocks.decided_rate import NARROW, DecidedRate, at_rate
from scanmix.blocks.label_quality import EVEN, RateInterval
from scanmix.blocks.transition import transition_matrix
from scanmix.config import percent
from scanmix.data.examples import Excluded
from scanmix.files import atomic_write, write_text
from scanmix.files.cells import csv_line
from scanmix.files.tables import data_frame, load_pyarrow


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Audit(Mapping[str, np.ndarray]):
    """Columns by name, sorted from the most doubtful label to the surest, decided ones last.

    `audit.columns.COLUMNS` says what each column holds.
    """

    columns: Mapping[str, np.ndarray]
    order: np.ndarray
    """(N,) position of each row in the training data."""
    class_names: tuple[str, ...]
    class_probs: np.ndarray
    """(N, C) probability of each true class by the noise model; rows sum to 1, and that of the given is p_clean."""
    neighbors: np.ndarray | None
    """(N, K) row numbers of the nearest neighbors, nearest first."""
    epochs: tuple[int, ...]
    losses: np.ndarray
    """(T, P, N) loss of the given label after each of `epochs`."""
    noise_rate: RateInterval
    """Share of labels that are wrong, decided ones counted as right, with a 90 % interval."""
    readings: tuple[str, ...]
    """What the interval of `noise_rate` allows for, in sentences."""
    confusion: np.ndarray
    """(C, C) expected counts; rows are true classes, columns given labels."""
    excluded: tuple[Excluded, ...] = ()
    """Examples that a person left out before the training; they have no row."""
    votes: VoteFindings = NO_VOTES
    """What several annotators said; its columns, in the order of the training data, are among `columns` too."""
    checked: Checked | None = None
    """Labels that a person decided, as they were before; None if there are none, or that is not known."""

    def __repr__(self) -> str:
        """Say how many labels there are, how many look wrong, and the noise rate."""
        found = f"{int(self.looks_wrong.sum())} of {len(self.order)} labels look wrong"
        return f"<Audit: {found}, noise rate {percent(self.noise_rate.value)}>"

    def _repr_html_(self) -> str:
        """Show itself in a notebook; images that came from files are shown, too."""
        return self.to_html()

    def to_html(self, images: Sequence[str] | torch.Tensor | None = None) -> str:
        """Return how many labels look wrong, and the most doubtful ones with their images, as HTML.

        `images` are files or pixels, (N, C, H, W) uint8, in the order of the training data; by default the files that
        the audit knows.
        """
        return audit_html(self.columns, self.order, int(self.looks_wrong.sum()), self.noise_rate, images)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column."""
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of columns; `len(audit["id"])` is N."""
        return len(self.columns)

    @property
    def decided(self) -> np.ndarray:
        """(N,) bool: labels that a person decided before the training; they count as right."""
        words = self.columns.get("decided")
        return np.zeros(len(self.order), dtype=bool) if words is None else np.array([word != "" for word in words])

    @property
    def doubt(self) -> np.ndarray:
        """(N,) float64: probability that each label is wrong, 1 - p_clean; 0 for a decided label.

        Where decisions have corrected the noise rate, those of the other labels are moved to its value.
        """
        doubt, others = self._by_model(), ~self.decided
        if self.checked is not None:
            rate = self.noise_rate.value * len(others) / max(int(others.sum()), 1)
            doubt[others] = at_rate(torch.from_numpy(doubt[others]), min(rate, 1.0)).numpy()
        return doubt

    def _by_model(self) -> np.ndarray:
        """Return the chance that each label is wrong by the model alone; 0 for a decided label. Shape: -> (N,)."""
        return np.where(self.decided, 0.0, 1 - self["p_clean"].astype(np.float64))

    def rates(self, **since: np.ndarray) -> DecidedRate:
        """Return the share of wrong labels now and before all decisions, and how many more decisions are needed.

        Shape: `since`, decisions that the audit does not know: `asked`, `wrong`, `gone` of `estimate_rate`, (N,) bool.
        """
        return estimate_rate(self._by_model(), self.decided, self.noise_rate, self.checked, **since)

    @property
    def looks_wrong(self) -> np.ndarray:
        """(N,) bool: another class is suggested, p_clean as in `labels.csv` is below 0.5, and nobody has decided."""
        below = self["p_clean"].astype(np.float64).round(4) < EVEN
        found: np.ndarray = below & (self["suggested"] != self["given"]) & ~self.decided
        return found

    @property
    def transition(self) -> np.ndarray:
        """Estimated share of each true class (row) that was given each label (column). Shape: (C, C)."""
        return transition_matrix(torch.from_numpy(self.confusion)).numpy()

    def summary(self) -> dict[str, Any]:
        """Return what holds for the data set as a whole, in types that JSON has.

        `kinds` and `looks_wrong` count labels that nobody has decided; `decided` counts the others by decision.
        """
        decided = self.decided
        kind, count = np.unique(self["kind"][~decided], return_counts=True)
        given = self.confusion.sum(0)
        wrong = given - self.confusion.diagonal()
        classes = [
            {"class": name, "labels": round(float(given[c])), "expected_wrong": round(float(wrong[c]), 1)}
            for c, name in enumerate(self.class_names)
        ]
        return {
            "labels": len(self["id"]),
            "noise_rate": self.noise_rate._asdict(),
            "readings": list(self.readings),
            **self._by_decisions(),
            "expected_wrong": float(wrong.sum()),
            "looks_wrong": int(self.looks_wrong.sum()),
            "kinds": dict(zip(kind.tolist(), count.tolist(), strict=True)),
            **self._decided_before(),
            **self.votes.summary(),
            "classes": sorted(classes, key=lambda row: -row["expected_wrong"] / max(row["labels"], 1)),
            "confused": self.confused_pairs(),
            "transition": self.transition.round(4).tolist(),
            "class_names": list(self.class_names),
        }

    def _by_decisions(self) -> dict[str, Any]:
        """Return what decisions tell of the labels before them and of the audit, and how many more are needed."""
        rates = self.rates()
        needed = {"decisions_needed": {"half_width": NARROW, "more": rates.more}}
        if self.checked is None:
            return needed
        return {"before_review": rates.before._asdict(), "checked": self.checked.summary(), **needed}

    def _decided_before(self) -> dict[str, Any]:
        """Return counts of earlier decisions, and of how many the audit, which does not see them, still doubts."""
        if "decided" not in self.columns:
            return {}
        word, count = np.unique(self["decided"][self.decided], return_counts=True)
        return {
            "decided": dict(zip(word.tolist(), count.tolist(), strict=True)),
            "decided_still_doubted": int((self["p_clean"][self.decided] < EVEN).sum()),
            "excluded": len(self.excluded),
        }

    def confused_pairs(self, most: int = 10) -> list[dict[str, Any]]:
        """Return the pairs (true class, given label) with the largest expected counts of wrong labels.

        At most `most` of them, each with at least 0.05 expected labels.
        """
        off = self.confusion.copy()
        np.fill_diagonal(off, 0)
        cells = np.argsort(-off, axis=None, kind="stable")[:most]
        pairs = [(int(cell) // len(off), int(cell) % len(off)) for cell in cells]
        return [
            {"true": self.class_names[t], "given": self.class_names[g], "expected": round(float(off[t, g]), 1)}
            for t, g in pairs if off[t, g] >= 0.05
        ]  # fmt: skip

    def to_csv(self, path: str | Path) -> None:
        """Write all columns as CSV, atomically; cells that a spreadsheet would run are quoted, see `csv_cell`.

        Raises:
            CannotWrite: the file cannot be written.
        """
        atomic_write(Path(path), self._write_csv)

    def _write_csv(self, path: Path) -> None:
        """Write 4096 rows at a time, since rows as text take many times the memory of the columns."""
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(csv_line(self.columns))
            for start in range(0, len(self.order), 4096):
                part = [_printed(name, column[start : start + 4096]) for name, column in self.columns.items()]
                file.writelines(map(csv_line, zip(*part, strict=True)))

    def to_parquet(self, path: str | Path) -> None:
        """Write all columns as Parquet, atomically.

        Raises:
            UserError: pyarrow is missing.
            CannotWrite: the file cannot be written.
        """
        pyarrow = load_pyarrow(Path(path))
        table = pyarrow.table({name: _in_utf8(name, column) for name, column in self.columns.items()})

        def write(aside: Path) -> None:
            with aside.open("wb") as file:  # pyarrow cannot open a path that is not UTF-8
                pyarrow.parquet.write_table(table, file)

        atomic_write(Path(path), write)

    def to_json(self, path: str | Path) -> None:
        """Write `summary` as JSON, atomically.

        Raises:
            CannotWrite: the file cannot be written.
        """
        text = json.dumps(self.summary(), indent=2) + "\n"
        write_text(Path(path), text)

    def to_pandas(self) -> Any:  # pandas ships no types
        """Return all columns as a data frame.

        Raises:
            UserError: pandas is missing.
        """
        return data_frame(dict(self.columns))


def _in_utf8(name: str, column: np.ndarray) -> np.ndarray | list[str]:
    """Return a column as Parquet takes it: bytes of a text that are not UTF-8 are spelled out."""
    if TYPES[name] is not str:
        return column
    return [cell.encode("utf-8", "backslashreplace").decode() for cell in column.tolist()]


def _printed(name: str, column: np.ndarray) -> list[Any]:
    """Return cells as CSV shows them: numbers with four decimals."""
    return [f"{cell:.4f}" for cell in column] if TYPES[name] is float else column.tolist()
