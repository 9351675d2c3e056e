"""What people decided of each label: an append-only log that is the truth, and a CSV made from it.

Legend: N rows of an audit.
"""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.files import write_aside

LOG, CORRECTED = "review-log.jsonl", "corrected.csv"
CHOICES = ("", "keep", "accept", "relabel", "exclude", "unsure")
"""What may be decided; the place is the code, and the first is undecided."""
UNDO = "undo"


class State(NamedTuple):
    """What holds for one row: a code in `CHOICES`, and its label."""

    code: int
    label: int


class Decisions:
    """The decisions of a run folder, rebuilt from its log; every change is on the disk before it counts.

    There is one writer: threads of one server, held apart by a lock.
    """

    def __init__(self, folder: Path, audit: Audit, who: str) -> None:
        """Rebuild the state from the log; half a line at its end, which a crash may leave, is none. Writes nothing.

        Raises:
            UserError: the log is damaged or of other data, or there is a `corrected.csv` without a log.
        """
        number = {name: place for place, name in enumerate(audit.class_names)}
        self.folder, self.who, self.class_names = folder, who, audit.class_names
        self.given = np.array([number[name] for name in audit["given"]], dtype=np.int64)
        self.suggested = np.array([number[name] for name in audit["suggested"]], dtype=np.int64)
        self.codes = np.zeros(len(self.given), dtype=np.int8)
        """(N,) places in `CHOICES`."""
        self.labels = self.given.copy()
        """(N,) as they hold now: the given one until somebody decides otherwise."""
        self.changed_at = np.zeros(len(self.given), dtype=np.int64)
        """(N,) revision that last touched each row."""
        self.revision = 0
        self._ids, self._paths = audit["id"].tolist(), audit["path"].tolist()
        self._history: dict[int, list[State]] = {}
        self._undoable: list[dict[int, None]] = []  # rows of each change, as ordered sets
        self._lock = threading.Lock()
        self._replay()
        self._csv = [self._csv_line(row) for row in range(len(self.given))]

    @property
    def _log(self) -> Path:
        return self.folder / LOG

    def take_over(self) -> None:
        """Bring the files into line after a crash: for the one who is going to write.

        Raises:
            OSError: they cannot be written.
        """
        if self._log.exists():
            content = self._log.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(self._log, content.rfind(b"\n") + 1)
            self._write_corrected()

    def decide(self, rows: Sequence[int], choice: str, label: int | None = None) -> list[int]:
        """Decide the same for every row, as one change; return the rows.

        A label that is the given one is `keep`, one that is suggested is `accept`, however it was chosen.

        Raises:
            UserError: an unknown choice, row or label.
            OSError: it could not be written; then nothing has changed.
        """
        rows = list(dict.fromkeys(rows))
        if choice not in CHOICES[1:]:
            raise UserError(f"there is no decision {choice!r}; known: {', '.join(CHOICES[1:])}")
        if not rows or min(rows) < 0 or max(rows) >= len(self.given):
            raise UserError(f"rows must lie in 0..{len(self.given) - 1}, and there must be one")
        if choice == "relabel" and (label is None or not 0 <= label < len(self.class_names)):
            raise UserError(f"another class must be one of 0..{len(self.class_names) - 1}, not {label}")
        with self._lock:
            self._commit([(row, self._decided(row, choice, label)) for row in rows], undo=False)
        return rows

    def undo(self) -> list[int]:
        """Take the last change back, whoever made it; return its rows, none when there is nothing to undo.

        Raises:
            OSError: it could not be written; then nothing has changed.
        """
        with self._lock:
            if not self._undoable:
                return []
            rows = list(self._undoable[-1])
            self._commit([(row, self._before(row)) for row in rows], undo=True)
        return rows

    def since(self, revision: int) -> dict[str, Any]:
        """Return the present revision and, of every row changed after `revision`, code and label."""
        with self._lock:
            rows = np.flatnonzero(self.changed_at > revision)
            states = zip(rows.tolist(), self.codes[rows].tolist(), self.labels[rows].tolist(), strict=True)
            return {"revision": self.revision, "undoable": len(self._undoable), "rows": [list(row) for row in states]}

    def _decided(self, row: int, choice: str, label: int | None) -> State:
        given, suggested = int(self.given[row]), int(self.suggested[row])
        if choice == "accept":
            label = suggested
        elif choice != "relabel" or label is None:
            return State(CHOICES.index(choice), given)
        choice = "keep" if label == given else "accept" if label == suggested else "relabel"
        return State(CHOICES.index(choice), label)

    def _before(self, row: int) -> State:
        history = self._history[row]
        return history[-2] if len(history) > 1 else State(0, int(self.given[row]))

    def _commit(self, changes: Sequence[tuple[int, State]], undo: bool) -> None:
        """To the log, then to memory, then to the CSV."""
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
        _append(self._log, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        self.revision += 1
        self._apply(changes, undo)
        for row, _ in changes:
            self._csv[row] = self._csv_line(row)
        self._write_corrected()

    def _apply(self, changes: Sequence[tuple[int, State]], undo: bool) -> None:
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
        """The label of a state as the log has it; none where the row is left out."""
        return None if CHOICES[state.code] == "exclude" else self.class_names[state.label]

    def _csv_line(self, row: int) -> str:
        names, text = self.class_names, io.StringIO()
        cells = (self._ids[row], self._paths[row], names[self.labels[row]], names[self.given[row]])
        csv.writer(text, lineterminator="\n").writerow([*cells, CHOICES[self.codes[row]]])
        return text.getvalue()

    def _write_corrected(self) -> None:
        text = "id,path,label,given,decision\n" + "".join(self._csv)
        write_aside(self.folder / CORRECTED, lambda aside: aside.write_bytes(text.encode()))

    def _replay(self) -> None:
        if not self._log.exists():
            if (self.folder / CORRECTED).exists():
                raise UserError(
                    f"{self.folder / CORRECTED} is there without a {LOG}; move it away: it would be replaced"
                )
            return
        whole = self._log.read_bytes().rpartition(b"\n")[0]
        place = {name: row for row, name in enumerate(self._ids)}
        number = {name: label for label, name in enumerate(self.class_names)}
        for count, line in enumerate(whole.splitlines(), start=1):
            try:
                self._replay_line(json.loads(line), place, number)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise UserError(
                    f"line {count} of {self._log} does not fit this run ({error}); correct or move it"
                ) from None

    def _replay_line(self, entry: dict[str, Any], place: dict[str, int], number: dict[str, int]) -> None:
        row, change, choice = place[entry["id"]], int(entry["change"]), entry["decision"]
        begins = change != self.revision
        self.revision = change
        if choice == UNDO:
            self._apply([(row, self._before(row))], undo=True)
            return
        label = int(self.given[row]) if entry["to"] is None else number[entry["to"]]
        self._apply([(row, State(CHOICES.index(choice), label))], undo=False)
        if not begins:  # further rows of one change are undone with the first
            self._undoable[-2].update(self._undoable.pop())


def _append(path: Path, content: bytes) -> None:
    """Add to a file and flush it to the disk; where that fails, leave the file as it was."""
    with path.open("ab") as file:
        before = file.tell()
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise
