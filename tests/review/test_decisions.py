import csv
import errno
import json
import os
import re
import threading
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.data.corrections import apply_corrections
from scanmix.data.decisions import WORDS
from scanmix.data.examples import DECIDED, Examples
from scanmix.files import CannotWrite
from scanmix.review import Decisions
from scanmix.review.decisions import CHOICES, CORRECTED, LOG, OFFERED, UNDO, Entry, OnlyInLog, outcome
from scanmix.review.rows import BEFORE_WORDS, CHOICE_WORDS
from scanmix.review.server import PAGE


@pytest.fixture
def audit(make_audit: Any) -> Audit:
    return make_audit()  # type: ignore[no-any-return]


def fresh(folder: Path, audit: Audit) -> Decisions:
    decisions = Decisions(folder, audit, "ann")
    decisions.recover()
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


def test_every_part_knows_the_same_decisions() -> None:
    assert set(get_args(get_type_hints(Entry)["decision"])) == {*OFFERED, UNDO}
    assert {*OFFERED} == {*CHOICES} - {"", "trusted"}
    assert set(WORDS.values()) == set(CHOICES), "what a table of corrections may say"
    assert tuple(CHOICE_WORDS) == CHOICES and tuple(BEFORE_WORDS) == DECIDED
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'data-choice="(\w+)"', page)) == set(OFFERED) - {"relabel"}, "relabel has a list"


@pytest.mark.parametrize(("given", "suggested"), [(0, 1), (1, 1)])
def test_the_chosen_class_says_which_decision_it_is(given: int, suggested: int) -> None:
    for choice, label in (("keep", given), ("accept", suggested), *(("relabel", label) for label in range(3))):
        word = CHOICES[outcome(choice, label, given, suggested).code]
        assert (word == "keep") == (label == given)
        assert (word == "accept") == (label == suggested != given)
        assert outcome(choice, label, given, suggested).label == label
    for choice in ("exclude", "unsure"):
        assert outcome(choice, 2, given, suggested) == (CHOICES.index(choice), given)


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
            decisions.decide(rows, str(rng.choice(OFFERED)), int(rng.integers(4)))
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
        with pytest.raises(CannotWrite, match="No space"):
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


def test_decisions_of_earlier_rounds_are_carried_on(tmp_path: Path, make_audit: Any) -> None:
    left_out = (("made/gone", "/x/gone.png", "bee"), ("made/=odd", "", "ant"))
    audit = make_audit(decided=["keep", "accept", "relabel", "keep"], excluded=left_out)
    decisions = fresh(tmp_path, audit)
    assert decisions.codes.tolist() == [0] * 12 and decisions.before.tolist() == [0] * 8 + [1, 2, 3, 1]
    decisions.decide([0], "accept")
    rows = corrected(tmp_path)
    words = [row["decision"] for row in rows]
    assert words == ["accept", *[""] * 7, "keep", "accept", "relabel", "keep", "exclude", "exclude"]
    assert [row["label"] for row in rows[8:12]] == audit["given"][8:12].tolist()
    assert [(row["id"], row["path"], row["given"]) for row in rows[12:]] == list(left_out)
    decisions.decide([8], "exclude")
    decisions.decide([9], "unsure")
    assert [row["decision"] for row in corrected(tmp_path)[8:10]] == ["exclude", "unsure"]  # the last word counts
    decisions.undo()
    decisions.undo()
    assert [row["decision"] for row in corrected(tmp_path)[8:10]] == ["keep", "accept"]
    assert state(fresh(tmp_path, audit)) == state(decisions)


LINE = {
    "change": 1, "who": "ann", "when": "2026-01-01T00:00:00+00:00", "id": "made/00000", "from": "ant", "to": "bee",
    "decision": "accept",
}  # fmt: skip


def with_(**cells: Any) -> str:
    return json.dumps({**LINE, **cells})


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (with_().replace('"change": 1', '"change": 1e999'), "change"),
        (with_(change=2**63), "change"),
        (with_(change=2**53), "change"),
        (with_().replace('"change": 1', '"change": ' + "9" * 5000), "number out of range"),
        (with_(change=0), "change"),
        (with_(change=-1), "change"),
        (with_(change=True), "change"),
        (with_(change=1.0), "change"),
        (with_(change="1"), "change"),
        ("[" * 20000, "recursion"),
        ('{"a":' * 20000, "recursion"),
        (with_(id=["made/00000"]), "id"),
        (with_(id="made/99999"), "there is no id 'made/99999'"),
        (with_(to="Bee"), "there is no class 'Bee'"),
        (with_(to=None), "the label None with the decision 'accept'"),
        (with_(to="ant", decision="exclude"), "the label 'ant' with the decision 'exclude'"),
        (with_(decision="burn"), "decision"),
        (with_(decision=""), "decision"),
        (with_(more=1), "more"),
        (json.dumps({key: value for key, value in LINE.items() if key != "who"}), "who"),
        (with_(decision="undo"), "there is nothing to undo for 'made/00000'"),
        (" ", "EOF"),
        ("NaN", "to fit|JSON|object|dictionary"),
    ],
)
def test_every_damaged_line_of_the_log_is_one_sentence(tmp_path: Path, audit: Audit, damaged: str, told: str) -> None:
    text = with_(id="made/00001", change=1, decision="keep", to="bee") + "\n"
    (tmp_path / LOG).write_text(text + damaged + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*review-log\.jsonl does not fit this run \(") as error:
        fresh(tmp_path, audit)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert re.search(told, str(error.value).partition("(")[2])
    assert not (tmp_path / CORRECTED).exists()


def test_a_log_that_goes_back_is_refused(tmp_path: Path, audit: Audit) -> None:
    lines = [with_(change=1), with_(change=2, id="made/00001", to="ant"), with_(change=1, id="made/00002", to="ant")]
    (tmp_path / LOG).write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"line 3 of .*\(change 1 comes after change 2\)"):
        fresh(tmp_path, audit)
    (tmp_path / LOG).write_text("\n".join(lines[:2]) + "\n")
    assert fresh(tmp_path, audit).revision == 2


def test_bytes_that_are_no_text_are_told(tmp_path: Path, audit: Audit) -> None:
    (tmp_path / LOG).write_bytes(with_().encode().replace(b"ann", b"\xff\xfe") + b"\n")
    with pytest.raises(UserError, match=r"line 1 of .* is no UTF-8"):
        fresh(tmp_path, audit)


def test_a_pipe_or_a_folder_in_place_of_the_log_is_told(tmp_path: Path, audit: Audit) -> None:
    os.mkfifo(tmp_path / LOG)
    with pytest.raises(UserError, match="named pipe"):
        fresh(tmp_path, audit)
    (tmp_path / LOG).unlink()
    (tmp_path / LOG).mkdir()
    with pytest.raises(UserError, match="is a folder"):
        fresh(tmp_path, audit)


@pytest.mark.parametrize("odd", ["b\r.png", "b\x1b[31m.png", "=1+1", "@sum", "-x", "+y", "\tz", "'=q", " a ", 'q"\r\n'])
def test_odd_names_come_back_from_the_csv(tmp_path: Path, make_audit: Any, odd: str) -> None:
    """Written by the review, read by the training: no name is another one afterwards, and no spreadsheet runs it."""
    audit = make_audit(classes=("ant", "bee", odd, "dog"))
    audit["id"][0] = odd
    decisions = fresh(tmp_path, audit)
    decisions.decide([0], "relabel", 2)
    assert not re.search(rb"(?m)(^|,)\"?[=+@\t\r-]", (tmp_path / CORRECTED).read_bytes().partition(b"\n")[2])
    examples = Examples(
        images=torch.zeros(12, 1, 8, 8, dtype=torch.uint8), labels=torch.from_numpy(decisions.given),
        class_names=audit.class_names, ids=tuple(audit["id"]),
    )  # fmt: skip
    result = apply_corrections(examples, tmp_path / CORRECTED)
    assert result.labels.tolist() == decisions.labels.tolist() and result.labels[0] == 2
    assert result.decided is not None and result.decided.nonzero().flatten().tolist() == [0]


def test_where_only_the_csv_cannot_be_written_the_decision_holds(
    tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = fresh(tmp_path, audit)

    def full(*_: object) -> None:
        raise CannotWrite("corrected.csv cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("scanmix.review.decisions.write_text", full)
        with pytest.raises(OnlyInLog, match=r"it is saved in review-log\.jsonl and holds, but corrected\.csv cannot"):
            decisions.decide([0], "keep")
    assert decisions.codes[0] == 1 and state(fresh(tmp_path, audit)) == state(decisions)
    assert corrected(tmp_path)[0]["decision"] == "keep"
