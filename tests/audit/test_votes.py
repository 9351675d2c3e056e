"""Votes in an audit, by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from scanmix.audit import Evidence, load_evidence, save_evidence, score_labels
from scanmix.audit.votes import NO_VOTES, judge_votes
from scanmix.blocks.annotators import majority
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import UserError
from scanmix.files.tensors import read_tensors, write_tensors

VOTES = torch.tensor([[0, 0, 1], [1, 1, 1], [2, 0, -1], [2, 2, 0], [1, -1, -1], [0, 1, 2]])


def evidence(votes: torch.Tensor | None = VOTES) -> Evidence:
    probs = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    return Evidence(
        labels=torch.tensor([0, 1, 0, 2, 1, 0]), probs=probs, predictions=probs.argmax(1)[None],
        class_names=("ant", "bee", "cat"), ids=tuple("uvwxyz"), votes=votes,
        annotators=() if votes is None else ("al", "bo", "cy"),
    )  # fmt: skip


def test_votes_are_told_row_by_row() -> None:
    found = judge_votes(evidence())
    said = ["ant 2, bee 1", "bee 3", "ant 1, cat 1", "cat 2, ant 1", "bee 1", "ant 1, bee 1, cat 1"]
    assert found.columns["votes"].tolist() == said
    assert found.columns["consensus"].tolist()[:2] == ["ant", "bee"]
    assert found.columns["agreement"].tolist()[:2] == pytest.approx([2 / 3, 1])
    assert found.no_majority == 2  # one each for two classes, and for three
    qualities = [each.quality for each in found.annotators]
    assert qualities == sorted(qualities)
    assert {each.annotator: each.votes for each in found.annotators} == {"al": 6, "bo": 5, "cy": 4}


def test_columns_follow_the_order_of_the_audit() -> None:
    audit, found = score_labels(evidence()), judge_votes(evidence())
    for name, column in found.columns.items():
        assert audit[name].tolist() == column[audit.order].tolist()
    assert list(audit)[-4:] == ["votes", "consensus", "consensus_prob", "agreement"]
    assert audit.summary()["no_majority"] == 2 and len(audit.summary()["annotators"]) == 3


@pytest.mark.parametrize("votes", [None, VOTES[:, :1].expand(-1, 3).where(torch.tensor([True, False, False]), -1)])
def test_without_two_votes_there_is_nothing_to_tell(votes: torch.Tensor | None) -> None:
    assert judge_votes(evidence(votes)) == NO_VOTES
    audit = score_labels(evidence(votes))
    assert "votes" not in audit and "annotators" not in audit.summary()


def test_p_clean_and_the_suggestion_are_those_of_the_votes() -> None:
    audit, found = score_labels(evidence()), judge_votes(evidence())
    assert found.posterior is not None
    given = found.posterior.gather(1, evidence().labels.unsqueeze(1)).squeeze(1).numpy()
    assert audit["p_clean"].tolist() == pytest.approx(given[audit.order].tolist())
    assert audit["suggested"].tolist() == audit["consensus"].tolist()
    assert audit.noise_rate.value == pytest.approx(1 - given.mean(), abs=1e-6)
    qualities = sum(each.quality * each.votes for each in found.annotators) / 15
    assert found.wrong_votes == pytest.approx(1 - qualities)
    assert audit.noise_rate.high >= found.wrong_votes - 1e-9 and "make the same mistake" in audit.readings[0]


def voted(seed: int) -> tuple[Evidence, torch.Tensor]:
    """Three votes of which a third are wrong, on 400 points in two clouds; the labels are the majority."""
    draws = torch.Generator().manual_seed(seed)
    truth = torch.arange(400) % 2
    points = torch.randn(400, 4, generator=draws) + 3.0 * torch.eye(4)[truth]
    votes = torch.where(torch.rand(400, 3, generator=draws) < 0.33, 1 - truth[:, None], truth[:, None])
    near = nearest_neighbors(points, 10)
    found = Evidence(
        labels=majority(votes, 2), class_names=("ant", "bee"), ids=tuple(map(str, range(400))), votes=votes,
        annotators=("al", "bo", "cy"), neighbors=near,
    )  # fmt: skip
    return found, truth


@pytest.mark.parametrize("seed", [0, 1])
def test_neighbors_and_votes_together_find_what_a_majority_got_wrong(seed: int) -> None:
    found, truth = voted(seed)
    audit = score_labels(found)
    right = (found.labels == truth).numpy()[audit.order]
    assert audit.noise_rate.low <= 1 - right.mean() <= audit.noise_rate.high < 0.45
    alone = score_labels(dataclasses.replace(found, neighbors=None))
    assert ((audit["p_clean"] - right) ** 2).mean() < 0.7 * (
        (alone["p_clean"] - right[audit.order.argsort()][alone.order]) ** 2
    ).mean()


def test_a_decided_label_is_right_whatever_the_votes_say() -> None:
    found, _ = voted(0)
    decided = torch.zeros(400, dtype=torch.int8)
    decided[:200] = 1
    audit = score_labels(dataclasses.replace(found, decided=decided))
    doubt = np.where(audit.decided, 0.0, 1 - audit["p_clean"])
    assert audit.noise_rate.value == pytest.approx(float(doubt.mean()), abs=1e-6) and audit.noise_rate.high <= 0.5


def test_votes_are_kept(tmp_path: Path) -> None:
    save_evidence(tmp_path, evidence())
    found = load_evidence(tmp_path)
    assert found.votes is not None and torch.equal(found.votes, VOTES) and found.annotators == ("al", "bo", "cy")
    save_evidence(tmp_path, evidence(None))
    assert load_evidence(tmp_path).votes is None


@pytest.mark.parametrize("votes", [VOTES[:, :2], VOTES + 1, VOTES - 1, VOTES.float()])
def test_damaged_votes_are_refused(tmp_path: Path, votes: torch.Tensor) -> None:
    save_evidence(tmp_path, evidence())
    path = tmp_path / "evidence" / "evidence.safetensors"
    tensors = read_tensors(path, "")
    write_tensors(path, {**tensors, "votes": votes.int() if votes.dtype == torch.int64 else votes})
    with pytest.raises(UserError, match="evidence"):
        load_evidence(tmp_path)


def test_bad_annotators_come_first_in_the_audit() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (200,), generator=generator)
    good = [torch.where(torch.rand(200, generator=generator) < 0.9, truth, (truth + 1) % 3) for _ in range(2)]
    bad = torch.where(torch.rand(200, generator=generator) < 0.4, truth, (truth + 1) % 3)
    votes = torch.stack([good[0], bad, good[1]], 1)
    probs = torch.eye(3)[truth] * 0.9 + 0.1 / 3
    found = dataclasses.replace(
        evidence(), labels=truth, probs=probs, predictions=truth[None], votes=votes,
        ids=tuple(str(i) for i in range(200)),
    )  # fmt: skip
    assert judge_votes(found).annotators[0].annotator == "bo" and not judge_votes(found).alike
