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
from scanmix.audit.stored import load_evidence
from scanmix.config import UserError
from scanmix.data.examples import DECIDED
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


def test_it_is_kept_with_the_run(second: Audit, tmp_path: Path) -> None:
    whole = dataclasses.replace(evidence(), decided=decided({3: "accept"}), excluded=(("a", "", "cat"),))
    save_evidence(tmp_path, whole)
    again = load_evidence(tmp_path)
    assert again.decided is not None and again.decided.dtype == torch.int8
    assert torch.equal(again.decided, whole.decided) and again.excluded == whole.excluded  # type: ignore[arg-type]
    save_evidence(tmp_path, evidence())
    older = load_evidence(tmp_path)
    assert older.decided is None and older.excluded == ()


def test_a_code_that_is_no_decision_is_damage(tmp_path: Path) -> None:
    save_evidence(tmp_path, dataclasses.replace(evidence(), decided=decided({})))
    file = tmp_path / "evidence" / "evidence.safetensors"
    save_file({**load_file(file), "decided": torch.full((120,), 9, dtype=torch.int8)}, file)
    with pytest.raises(UserError, match="decided outside of"):
        load_evidence(tmp_path)
