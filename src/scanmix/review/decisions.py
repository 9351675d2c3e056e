"""Decisions about labels: an append-only log, which is the record, and a CSV that is derived from it.

Legend: N rows of an audit.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pydantic

from scanmix.audit import Audit
from scanmix.config import STRICT, UserError
from scanmix.data.examples import DECIDED, TRUSTED
from scanmix.files import CannotWrite, append_text, reading, write_text, writing
from scanmix.files.cells import csv_line

LOG, CORRECTED = "review-log.jsonl", "corrected.csv"
CHOICES = (*DECIDED, "exclude", "unsure")
"""Possible decisions; the position in this tuple is the code, and the first means undecided."""
OFFERED = tuple(choice for choice in CHOICES[1:] if choice != TRUSTED)
"""Decisions of a review; a label that came as a trusted one has no decision yet."""
UNDO = "undo"
MOST = 2**53
"""Revisions stay below this, since the numbers of the page's JavaScript are doubles."""


class OnlyInLog(CannotWrite):
    """A change is in the log and therefore holds, but the CSV could not be updated."""


class State(NamedTuple):
    """The state of one row: a code (position in `CHOICES`) and the label that follows from it."""

    code: int
    label: int


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Entry:
    """A line of the log: what one change did to one row."""

    change: Annotated[int, pydantic.Field(ge=1, lt=MOST)]
    who: str
    when: str
    id: str
    before: Annotated[str | None, pydantic.Field(alias="from")]
    after: Annotated[str | None, pydantic.Field(alias="to")]
    decision: Literal["keep", "accept", "relabel", "exclude", "unsure", "undo"]


def outcome(choice: str, label: int | None, given: int, suggested: int) -> State:
    """Return the decision that a choice means for a row. The rule stands only here; the page asks the server.

    The chosen class matters, not the key that chose it: the given class is `keep`, the suggested one `accept`, any
    other `relabel`. `exclude` and `unsure` choose no class; the given label stays.

    Args:
        choice: a word of `CHOICES`.
        label: the chosen class of `relabel`; else ignored.
        given: the given label of the row.
        suggested: the class that the audit suggests for it.
    """
    chosen = {"keep": given, "accept": suggested, "relabel": label}.get(choice)
    if chosen is None:
        return State(CHOICES.index(choice), given)
    word = "keep" if chosen == given else "accept" if chosen == suggested else "relabel"
    return State(CHOICES.index(word), chosen)


READ_ENTRY = pydantic.TypeAdapter(Entry)


class Decisions:
    """The decisions of a run folder, rebuilt from its log; every change is on disk before it takes effect.

    Only one process may write: the server, whose threads share a lock.
    """

    def __init__(self, folder: Path, audit: Audit, who: str) -> None:
        """Rebuild the state from the log without writing; ignore half a line at its end, which a crash may leave.

        Args:
            folder: the run folder that holds, or will hold, the log.
            audit: the audit of the run; rows are its rows.
            who: name that the log gives to new changes.

        Raises:
            UserError: the log is damaged or of other data, or there is a `corrected.csv` without a log.
        """
        number = {name: c for c, name in enumerate(audit.class_names)}
        self.folder, self.who, self.class_names = folder, who, audit.class_names
        self.given = np.array([number[name] for name in audit["given"]], dtype=np.int64)
        self.suggested = np.array([number[name] for name in audit["suggested"]], dtype=np.int64)
        self.codes = np.zeros(len(self.given), dtype=np.int8)
        """(N,) positions in `CHOICES`."""
        self.labels = self.given.copy()
        """(N,) current labels: the given one until a decision changes it."""
        self.before = np.array([CHOICES.index(word) for word in audit.columns.get("decided", ())], dtype=np.int8)
        """(N,) positions in `CHOICES`: decisions of earlier rounds, which hold until a new decision."""
        if not len(self.before):
            self.before = np.zeros(len(self.given), dtype=np.int8)
        self.changed_at = np.zeros(len(self.given), dtype=np.int64)
        """(N,) revision that last changed each row."""
        self.revision = 0
        self._ids, self._paths = audit["id"].tolist(), audit["path"].tolist()
        self._history: dict[int, list[State]] = {}
        self._undoable: list[dict[int, None]] = []  # rows of each change, as ordered sets
        self._lock = threading.Lock()
        self._replay()
        # N lines of text in memory, so that a change formats its own rows only.
        self._csv = [self._csv_line(row) for row in range(len(self.given))]
        self._left_out = [csv_line((*row, row[-1], "exclude")) for row in audit.excluded]

    @property
    def _log(self) -> Path:
        return self.folder / LOG

    def recover(self) -> None:
        """Repair the files after a crash: cut half a line off the log and write the CSV. Call it before any change.

        Raises:
            CannotWrite: a file cannot be written.
        """
        if self._log.exists():
            with writing(self._log):
                content = self._log.read_bytes()
                if not content.endswith(b"\n"):
                    os.truncate(self._log, content.rfind(b"\n") + 1)
            self._write_corrected()

    def decide(self, rows: Sequence[int], choice: str, label: int | None = None) -> list[int]:
        """Apply a choice to rows as one change, see `outcome`; return the rows without repetitions.

        Args:
            rows: row numbers of the audit.
            choice: a word of `CHOICES`.
            label: the chosen class, if the choice is `relabel`.

        Raises:
            UserError: the choice, a row or the label is unknown.
            CannotWrite: the log cannot be written; nothing has changed.
            OnlyInLog: the change holds, but the CSV could not be written.
        """
        rows = list(dict.fromkeys(rows))
        self.decide_each([(row, choice, label) for row in rows])
        return rows

    def decide_each(self, wishes: Sequence[tuple[int, str, int | None]]) -> None:
        """Apply a choice of its own to each of several rows as one change, see `outcome`.

        Args:
            wishes: row, choice and chosen class, as `decide` takes them; no row twice.

        Raises:
            UserError, CannotWrite, OnlyInLog: as `decide`.
        """
        if not wishes:
            raise UserError("there must be one row to decide")
        for row, choice, label in wishes:
            if choice not in OFFERED:
                raise UserError(f"there is no decision {choice!r}; known: {', '.join(OFFERED)}")
            if not 0 <= row < len(self.given):
                raise UserError(f"rows must lie in 0..{len(self.given) - 1}, not {row}")
            if choice == "relabel" and (label is None or not 0 <= label < len(self.class_names)):
                raise UserError(f"another class must be one of 0..{len(self.class_names) - 1}, not {label}")
        with self._lock:
            self._commit([(row, self.meant(row, choice, label)) for row, choice, label in wishes], undo=False)

    def meant(self, row: int, choice: str, label: int | None = None) -> State:
        """Return the state that a choice would give a row, see `outcome`."""
        return outcome(choice, label, int(self.given[row]), int(self.suggested[row]))

    def undo(self) -> list[int]:
        """Undo the last change, whoever made it; return its rows, which are none if there is nothing to undo.

        Raises:
            CannotWrite, OnlyInLog: as `decide`.
        """
        with self._lock:
            if not self._undoable:
                return []
            rows = list(self._undoable[-1])
            self._commit([(row, self._previous(row)) for row in rows], undo=True)
        return rows

    def since(self, revision: int) -> dict[str, Any]:
        """Return the current revision, the number of changes that can be undone, and the state of changed rows.

        `rows` holds [row, code, label] for every row changed after `revision`.
        """
        with self._lock:
            rows = np.flatnonzero(self.changed_at > revision)
            states = zip(rows.tolist(), self.codes[rows].tolist(), self.labels[rows].tolist(), strict=True)
            return {"revision": self.revision, "undoable": len(self._undoable), "rows": [list(row) for row in states]}

    def _previous(self, row: int) -> State:
        """Return the state of a row before its last change."""
        history = self._history[row]
        return history[-2] if len(history) > 1 else State(0, int(self.given[row]))

    def _commit(self, changes: Sequence[tuple[int, State]], undo: bool) -> None:
        """Write changes to the log, then apply them in memory, then write the CSV.

        Costs time that grows with N: the CSV is written whole. revisit: write it less often if N is in the millions.
        """
        common = {"change": self.revision + 1, "who": self.who, "when": datetime.now(UTC).isoformat("T", "seconds")}
        lines = [
            {
                **common,
                "id": self._ids[row],
                "from": self._word(State(int(self.codes[row]), int(self.labels[row]))),
                "to": self._word(state),
                "decision": UNDO if undo else CHOICES[state.code],
            }
            for row, state in changes
        ]
        append_text(self._log, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self.revision += 1
        self._apply(changes, undo)
        for row, _ in changes:
            self._csv[row] = self._csv_line(row)
        try:
            self._write_corrected()
        except CannotWrite as error:
            raise OnlyInLog(f"it is saved in {LOG} and holds, but {error}") from error

    def _apply(self, changes: Sequence[tuple[int, State]], undo: bool) -> None:
        """Set rows to new states, and keep the history that undo needs."""
        if not undo:
            self._undoable.append({row: None for row, _ in changes})
        for row, state in changes:
            if undo:
                self._history[row].pop()
                del self._undoable[-1][row]
            else:
                self._history.setdefault(row, []).append(state)
            self.codes[row], self.labels[row], self.changed_at[row] = state.code, state.label, self.revision
        if not self._undoable[-1]:
            self._undoable.pop()

    def _word(self, state: State) -> str | None:
        """Return the label of a state as the log has it; None for an excluded row."""
        return None if CHOICES[state.code] == "exclude" else self.class_names[state.label]

    def _csv_line(self, row: int) -> str:
        names, choice = self.class_names, CHOICES[self.codes[row] or self.before[row]]
        return csv_line((self._ids[row], self._paths[row], names[self.labels[row]], names[self.given[row]], choice))

    def _write_corrected(self) -> None:
        text = "id,path,label,given,decision\n" + "".join(self._csv) + "".join(self._left_out)
        write_text(self.folder / CORRECTED, text)

    def _replay(self) -> None:
        """Apply every complete line of the log."""
        if not self._log.exists():
            if (self.folder / CORRECTED).exists():
                raise UserError(
                    f"{self.folder / CORRECTED} is there without a {LOG}; move it away: it would be replaced"
                )
            return
        with reading(self._log, "correct or move it"):
            whole = self._log.read_bytes().rpartition(b"\n")[0]
        row_of = {name: row for row, name in enumerate(self._ids)}
        number = {name: label for label, name in enumerate(self.class_names)}
        for count, line in enumerate(whole.splitlines(), start=1):
            try:
                self._replay_line(read_entry(line), row_of, number)
            except ValueError as error:
                raise UserError(
                    f"line {count} of {self._log} does not fit this run ({error}); correct or move it"
                ) from None

    def _replay_line(self, entry: Entry, row_of: dict[str, int], number: dict[str, int]) -> None:
        """Apply a line of the log.

        Raises:
            ValueError: it does not fit the audit or the lines before it.
        """
        if entry.id not in row_of:
            raise ValueError(f"there is no id {entry.id!r}")
        if entry.change < self.revision:
            raise ValueError(f"change {entry.change} comes after change {self.revision}")
        row, begins = row_of[entry.id], entry.change != self.revision
        self.revision = entry.change
        if entry.decision == UNDO:
            if not self._undoable or row not in self._undoable[-1]:
                raise ValueError(f"there is nothing to undo for {entry.id!r}")
            self._apply([(row, self._previous(row))], undo=True)
            return
        if (entry.after is None) != (entry.decision == "exclude"):
            raise ValueError(f"the label {entry.after!r} with the decision {entry.decision!r}")
        if entry.after is not None and entry.after not in number:
            raise ValueError(f"there is no class {entry.after!r}")
        label = int(self.given[row]) if entry.after is None else number[entry.after]
        self._apply([(row, State(CHOICES.index(entry.decision), label))], undo=False)
        if not begins:  # all rows of one change are undone together
            if len(self._undoable) < 2:
                raise ValueError(f"change {entry.change} decides after it took back")
            self._undoable[-2].update(self._undoable.pop())


def read_entry(line: bytes) -> Entry:
    """Return the entry in a line of the log.

    Raises:
        ValueError: the line is not an entry; the message says where it goes wrong.
    """
    try:
        return READ_ENTRY.validate_json(line.decode("utf-8"), strict=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is no UTF-8") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(": ".join([*map(str, first["loc"]), first["msg"]])) from None
