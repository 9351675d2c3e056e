"""A second round: labels that a person decided before the training are believed, come last, and stay known."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scanmix.audit import Audit, Evidence, save_evidence, score_labels
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.audit.decided import sentences
from scanmix.audit.stored import load_evidence
from scanmix.config import UserError
from scanmix.data.examples import DECIDED, NOT_KNOWN
from scanmix.integrations.conversions import datalab_columns

WRONG = 30
"""The first so many of 120 labels."""


def evidence(seed: int = 0) -> Evidence:
    draw = np.random.default_rng(seed)
    true = np.arange(120) % 3
    labels = np.where(np.arange(120) < WRONG, (true + 1) % 3, true)
    features = np.eye(3)[true] * 5 + draw.normal(size=(120, 3)) * 0.3
    probs = np.eye(3)[true] * 0.85 + 0.05 + draw.uniform(0, 0.02, (120, 3))
    probs /= probs.sum(1, keepdims=True)
    return evidence_from_arrays(labels, probs, features, ("cat", "dog", "owl"))


def decided(places: dict[int, str]) -> torch.Tensor:
    codes = torch.zeros(120, dtype=torch.int8)
    for place, word in places.items():
        codes[place] = DECIDED.index(word)
    return codes


@pytest.fixture
def second() -> Audit:
    """Ten wrong labels were kept, two right ones relabeled."""
    places = dict.fromkeys(range(10), "keep") | {50: "relabel", 51: "relabel"}
    left_out = (("x/1.png", "/x/1.png", "dog"),)
    return score_labels(dataclasses.replace(evidence(), decided=decided(places), excluded=left_out))


def test_decided_labels_come_last_whatever_their_score(second: Audit) -> None:
    assert set(second.order[-12:].tolist()) == {*range(10), 50, 51}
    assert second.decided.tolist() == [False] * 108 + [True] * 12
    assert set(second.order[:20].tolist()) == set(range(10, WRONG))
    for part in (slice(0, 108), slice(108, 120)):  # within each part the most doubtful comes first
        assert (np.diff(second["p_clean"][part]) >= 0).all()
    assert second["p_clean"][-12] < 0.05  # as the evidence has it: the person may err


def test_decided_labels_are_counted_as_right_everywhere(second: Audit) -> None:
    by_place = dict(zip(second.order.tolist(), second["p_clean"].tolist(), strict=True))
    doubt = sum(1 - p for place, p in by_place.items() if place not in {*range(10), 50, 51})
    assert second["expected_wrong"][-1] == pytest.approx(doubt, abs=0.01) == second["expected_wrong"][-13]
    assert second.doubt.sum() == pytest.approx(doubt, abs=1e-6)
    summary = second.summary()
    assert summary["expected_wrong"] == pytest.approx(doubt, abs=1e-4)
    assert summary["noise_rate"]["value"] == pytest.approx(doubt / 120, abs=1e-6)
    assert summary["noise_rate"]["low"] <= 20 / 120 <= summary["noise_rate"]["high"]
    assert summary["looks_wrong"] == second.looks_wrong.sum() == 20
    assert summary["kinds"] == {"fine": 88, "wrong": 20} and summary["labels"] == 120
    assert summary["decided"] == {"keep": 10, "relabel": 2}
    assert (summary["decided_still_doubted"], summary["excluded"]) == (10, 1)
    assert sum(row["labels"] for row in summary["classes"]) == 120
    assert datalab_columns(second)["is_label_issue"].nonzero()[0].tolist() == list(range(10, WRONG))


def test_the_word_is_the_last_column_and_in_the_reason(second: Audit, tmp_path: Path) -> None:
    second.to_csv(tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-1] == "decided" and list(rows[0])[:-1] == list(score_labels(evidence()))
    assert [row["decided"] for row in rows[-13:]] == ["", *["keep"] * 10, "relabel", "relabel"]
    assert rows[-12]["reason"].startswith("kept by a person; looks like ")
    assert rows[-1]["reason"].startswith("given by a person; looks like ")
    assert not rows[0]["reason"].startswith(("kept", "given"))
    json.dumps(second.summary())


def test_without_decisions_nothing_is_added() -> None:
    plain = score_labels(evidence())
    assert "decided" not in plain and not plain.decided.any() and "decided" not in plain.summary()
    asked = score_labels(dataclasses.replace(evidence(), decided=decided({})))
    assert asked["decided"].tolist() == [""] * 120 and asked.summary()["decided"] == {}
    assert asked.noise_rate == plain.noise_rate and asked.order.tolist() == plain.order.tolist()


def test_where_all_is_decided_nothing_is_wrong() -> None:
    found = score_labels(dataclasses.replace(evidence(), decided=decided(dict.fromkeys(range(120), "accept"))))
    assert tuple(found.noise_rate) == (0, 0, 0) and found.summary()["kinds"] == {} and found["expected_wrong"][-1] == 0


def reviewed(places: list[int], before: bool = True) -> Evidence:
    """A person sets labels right, knowing the class: the first `WRONG` were wrong."""
    given = evidence()
    codes = decided({place: "relabel" if place < WRONG else "keep" for place in places})
    labels = given.labels.clone()
    labels[places] = torch.tensor(places) % 3
    return dataclasses.replace(
        given, labels=labels, decided=codes, before=torch.where(codes > 0, given.labels, NOT_KNOWN) if before else None
    )


def test_decisions_are_compared_with_what_the_audit_said() -> None:
    places = [*range(0, WRONG, 3), *range(WRONG, 120, 3)]
    found = score_labels(reviewed(places))
    summary = found.summary()
    assert summary["checked"]["asked"] == 40 and summary["checked"]["found_wrong"] == 10
    assert summary["checked"]["suggestion_right"] == 40  # these classes are far apart
    assert summary["checked"]["expected_wrong"] == pytest.approx(10, abs=1)
    assert found.checked is not None
    asked = dict(zip(found.order.tolist(), found.checked.asked.tolist(), strict=True))
    assert sorted(place for place in asked if asked[place]) == places
    wrong = dict(zip(found.order.tolist(), found.checked.wrong.tolist(), strict=True))
    assert sorted(place for place in wrong if wrong[place]) == list(range(0, WRONG, 3))


def test_the_share_before_the_review_and_the_share_now_are_told_apart() -> None:
    plain = score_labels(evidence())
    found = score_labels(reviewed([*range(0, WRONG, 3), *range(WRONG, 120, 3)]))
    summary = found.summary()
    before, now = summary["before_review"], summary["noise_rate"]
    assert before["value"] == pytest.approx(now["value"] + 10 / 120) == pytest.approx(WRONG / 120, abs=0.02)
    assert before["low"] <= WRONG / 120 <= before["high"]
    assert before["high"] - before["low"] < plain.noise_rate.high - plain.noise_rate.low
    assert summary["decisions_needed"]["more"] < plain.summary()["decisions_needed"]["more"]
    told = " ".join(sentences(summary))
    assert "Before the review 2" in told and "suggestion was right for 40 (100.0 %)" in told
    assert "it expected 10 of them to be wrong, and 10 were" in told and "more decisions about labels drawn" in told
    assert len(sentences(plain.summary())) == 1


def test_every_count_agrees_with_the_rate_that_decisions_have_corrected() -> None:
    """Half of what the audit takes for wrong turns out to be right: all counts of wrong labels fall with the rate."""
    given = reviewed([*range(0, WRONG, 2), *range(WRONG, 120, 2)])
    labels = given.labels.clone()
    for place in range(0, WRONG, 4):
        labels[place] = (place + 1) % 3  # kept as it was given
    found = score_labels(dataclasses.replace(given, labels=labels))
    unasked = score_labels(dataclasses.replace(given, labels=labels, before=None))
    rate = found.noise_rate.value
    assert rate < 0.8 * unasked.noise_rate.value
    assert found.doubt.sum() == pytest.approx(120 * rate, abs=1e-4) == found.summary()["expected_wrong"]
    assert found["expected_wrong"][-1] == pytest.approx(120 * rate, abs=0.01)
    assert found.doubt[found.decided].tolist() == [0.0] * 60
    assert sum(row["expected_wrong"] for row in found.summary()["classes"]) == pytest.approx(120 * rate, abs=0.2)
    again = found.rates()
    assert again.now.value == pytest.approx(rate) and again.before.value == pytest.approx(rate + 7 / 120)


def test_labels_known_from_the_start_or_not_known_before_say_nothing_of_the_others() -> None:
    given = reviewed([*range(0, 120, 2)])
    for nothing in (reviewed([*range(0, 120, 2)], before=False), given_unknown(given)):
        found = score_labels(nothing)
        assert found.checked is None and "checked" not in found.summary() and "before_review" not in found.summary()


def given_unknown(known: Evidence) -> Evidence:
    return dataclasses.replace(known, before=torch.full((120,), NOT_KNOWN))


def test_where_all_was_decided_the_share_before_is_what_was_found() -> None:
    found = score_labels(reviewed(list(range(120))))
    assert tuple(found.noise_rate) == (0, 0, 0)
    assert found.summary()["before_review"] == {name: WRONG / 120 for name in ("value", "low", "high")}
    assert found.summary()["decisions_needed"]["more"] == 0


def test_it_is_kept_with_the_run(second: Audit, tmp_path: Path) -> None:
    whole = dataclasses.replace(evidence(), decided=decided({3: "accept"}), excluded=(("a", "", "cat"),))
    save_evidence(tmp_path, whole)
    again = load_evidence(tmp_path)
    assert again.decided is not None and again.decided.dtype == torch.int8
    assert torch.equal(again.decided, whole.decided) and again.excluded == whole.excluded  # type: ignore[arg-type]
    assert again.before is None  # as earlier versions wrote it
    checked = reviewed([0, 50])
    save_evidence(tmp_path, checked)
    assert load_evidence(tmp_path).before.tolist() == checked.before.tolist()  # type: ignore[union-attr]
    save_evidence(tmp_path, evidence())
    older = load_evidence(tmp_path)
    assert older.decided is None and older.excluded == ()


def test_a_code_that_is_no_decision_is_damage(tmp_path: Path) -> None:
    save_evidence(tmp_path, dataclasses.replace(evidence(), decided=decided({})))
    file = tmp_path / "evidence" / "evidence.safetensors"
    save_file({**load_file(file), "decided": torch.full((120,), 9, dtype=torch.int8)}, file)
    with pytest.raises(UserError, match="decided outside of"):
        load_evidence(tmp_path)
