import csv
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.review import Decisions
from scanmix.review.decisions import CHOICES, CORRECTED, LOG


@pytest.fixture
def audit(make_audit: Any) -> Audit:
    return make_audit()  # type: ignore[no-any-return]


def fresh(folder: Path, audit: Audit) -> Decisions:
    decisions = Decisions(folder, audit, "ann")
    decisions.take_over()
    return decisions


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]


def corrected(folder: Path) -> list[dict[str, str]]:
    with (folder / CORRECTED).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def state(decisions: Decisions) -> tuple[list[str], list[int]]:
    return [CHOICES[code] for code in decisions.codes], decisions.labels.tolist()


def test_each_decision_is_in_log_and_csv(tmp_path: Path, audit: Audit) -> None:
    decisions = fresh(tmp_path, audit)
    assert not list(tmp_path.iterdir())  # looking writes nothing
    for row, choice in enumerate(("keep", "accept", "exclude", "unsure")):
        decisions.decide([row], choice)
    decisions.decide([4], "relabel", 3)
    rows = corrected(tmp_path)
    assert [row["decision"] for row in rows[:6]] == ["keep", "accept", "exclude", "unsure", "relabel", ""]
    assert [row["label"] for row in rows[:6]] == ["ant", "cat <b>", "cat <b>", "dog", "dog", "bee"]
    assert [row["given"] for row in rows] == audit["given"].tolist()  # what was given is never changed
    log = log_of(tmp_path)
    assert [line["to"] for line in log] == ["ant", "cat <b>", None, "dog", "dog"]
    assert log[1] == {
        "change": 2, "who": "ann", "when": log[1]["when"], "id": "made/00001", "from": "bee", "to": "cat <b>",
        "decision": "accept",
    }  # fmt: skip
    assert log[1]["when"].startswith("20") and log[1]["when"].endswith("+00:00")


def test_a_class_that_is_given_or_suggested_is_kept_or_accepted(tmp_path: Path, audit: Audit) -> None:
    decisions = fresh(tmp_path, audit)
    decisions.decide([0], "relabel", 0)
    decisions.decide([1], "relabel", 2)
    decisions.decide([11], "accept")  # where the suggestion is the given label
    assert [CHOICES[decisions.codes[row]] for row in (0, 1, 11)] == ["keep", "accept", "keep"]


def test_undo_goes_back_step_by_step_and_takes_bulk_as_one(tmp_path: Path, audit: Audit) -> None:
    decisions = fresh(tmp_path, audit)
    seen = [state(decisions)]
    decisions.decide([0], "keep")
    seen.append(state(decisions))
    decisions.decide([0, 1, 2, 1], "accept")
    seen.append(state(decisions))
    decisions.decide([2], "exclude")
    for before in reversed(seen):
        assert decisions.undo()
        assert state(decisions) == before
    assert decisions.undo() == []
    assert [line["decision"] for line in log_of(tmp_path)].count("undo") == 5
    assert all(row["decision"] == "" for row in corrected(tmp_path))


def test_a_random_walk_is_rebuilt_from_the_log_at_every_cut(tmp_path: Path, audit: Audit) -> None:
    rng = np.random.default_rng(1)
    decisions = fresh(tmp_path, audit)
    for _ in range(40):
        if rng.random() < 0.3:
            decisions.undo()
        else:
            rows = rng.choice(12, size=rng.integers(1, 5), replace=False).tolist()
            decisions.decide(rows, str(rng.choice(CHOICES[1:])), int(rng.integers(4)))
    again = fresh(tmp_path, audit)
    assert state(again) == state(decisions) and again.revision == decisions.revision
    while decisions.undo():
        pass
    assert state(decisions) == state(fresh(tmp_path / "none", audit))
    whole = (tmp_path / LOG).read_bytes()
    for cut in range(0, len(whole), 2999):  # killed anywhere, also within a change for many
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / LOG).write_bytes(whole[:cut])
        survivor = fresh(folder, audit)
        lines = whole[:cut].count(b"\n")
        assert (folder / LOG).read_bytes().count(b"\n") == lines
        survivor.decide([5], "unsure")
        assert state(fresh(folder, audit)) == state(survivor)
        while survivor.undo():
            pass
        assert not survivor.codes.any() and (survivor.labels == survivor.given).all()


def test_a_csv_older_than_the_log_is_written_again(tmp_path: Path, audit: Audit) -> None:
    fresh(tmp_path, audit).decide([0], "accept")
    (tmp_path / CORRECTED).unlink()
    fresh(tmp_path, audit)
    assert corrected(tmp_path)[0]["decision"] == "accept"


@pytest.mark.parametrize(
    "line", ['{"id": "nobody", "change": 1, "decision": "keep", "to": "ant"}', "no json", "[]", "3",
             '{"id": "made/00000", "change": 1, "decision": "undo", "to": "ant"}'],
)  # fmt: skip
def test_a_damaged_log_is_named_and_left_alone(tmp_path: Path, audit: Audit, line: str) -> None:
    (tmp_path / LOG).write_text(line + "\n")
    with pytest.raises(UserError, match=r"line 1 of .*review-log\.jsonl does not fit this run"):
        fresh(tmp_path, audit)
    assert (tmp_path / LOG).read_text() == line + "\n"


def test_a_csv_of_somebody_else_is_not_replaced(tmp_path: Path, audit: Audit) -> None:
    (tmp_path / CORRECTED).write_text("mine")
    with pytest.raises(UserError, match="without a review-log"):
        fresh(tmp_path, audit)
    assert (tmp_path / CORRECTED).read_text() == "mine"


@pytest.mark.parametrize(
    ("rows", "choice", "label"),
    [([], "keep", None), ([12], "keep", None), ([-1], "keep", None), ([0], "burn", None), ([0], "", None),
     ([0], "relabel", None), ([0], "relabel", 4)],
)  # fmt: skip
def test_nonsense_is_refused(tmp_path: Path, audit: Audit, rows: list[int], choice: str, label: int | None) -> None:
    decisions = fresh(tmp_path, audit)
    with pytest.raises(UserError):
        decisions.decide(rows, choice, label)
    assert decisions.revision == 0 and not (tmp_path / LOG).exists()


def test_a_full_disk_changes_nothing(tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = fresh(tmp_path, audit)
    decisions.decide([0], "keep")
    before = (tmp_path / LOG).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            decisions.decide([1], "accept")
    assert (tmp_path / LOG).read_bytes() == before
    assert decisions.revision == 1 and decisions.codes[1] == 0
    decisions.decide([1], "accept")
    assert state(fresh(tmp_path, audit)) == state(decisions)


def test_many_threads_lose_nothing(tmp_path: Path, make_audit: Any) -> None:
    audit = make_audit(40)
    decisions = fresh(tmp_path, audit)

    def work(first: int) -> None:
        for row in range(first, 40, 8):
            decisions.decide([row], "unsure")

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decisions.revision == len(log_of(tmp_path)) == 40
    assert [line["change"] for line in log_of(tmp_path)] == list(range(1, 41))
    assert all(row["decision"] == "unsure" for row in corrected(tmp_path))


def test_since_tells_only_what_is_new(tmp_path: Path, audit: Audit) -> None:
    decisions = fresh(tmp_path, audit)
    decisions.decide([0, 1], "keep")
    decisions.decide([2], "accept")
    assert [row for row, *_ in decisions.since(0)["rows"]] == [0, 1, 2]
    assert decisions.since(1) == {"revision": 2, "undoable": 2, "rows": [[2, 2, 3]]}
    decisions.undo()
    assert decisions.since(2)["rows"] == [[2, 0, 2]]


def test_ids_with_odd_characters_survive(tmp_path: Path, make_audit: Any) -> None:
    audit = make_audit()
    odd = ['a,"b"\n<script>', "ü#?&%20", "line\u2028break"]
    audit["id"][:3] = odd
    fresh(tmp_path, audit).decide([0, 1, 2], "accept")
    assert [row["id"] for row in corrected(tmp_path)[:3]] == odd
    assert fresh(tmp_path, audit).codes[:3].all()
