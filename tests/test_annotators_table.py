"""The table of annotators: its Dawid and Skene is the published EM, and its rows become a page and come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from results import annotators
from scanmix.data.examples import NO_VOTE


def slow_dawid_skene(votes: list[list[int]], classes: int, rounds: int) -> list[int]:
    """One vote after the other, in plain numbers."""
    shares = [[float(row.count(c)) for c in range(classes)] for row in votes]
    posterior = [[each / sum(row) for each in row] for row in shares]
    for _ in range(rounds):
        matrices = []
        for a in range(len(votes[0])):
            counts = [[0.0] * classes for _ in range(classes)]
            for row, given in zip(posterior, votes, strict=True):
                for c in range(classes if given[a] != NO_VOTE else 0):
                    counts[c][given[a]] += row[c]
            matrices.append([[each / max(sum(row), 1e-300) for each in row] for row in counts])
        prior = [sum(row[c] for row in posterior) / len(votes) for c in range(classes)]
        for i, given in enumerate(votes):
            joint = list(prior)
            for a, label in enumerate(given):
                if label != NO_VOTE:
                    joint = [each * matrices[a][c][label] for c, each in enumerate(joint)]
            posterior[i] = [each / sum(joint) for each in joint]
    return [row.index(max(row)) for row in posterior]


@pytest.mark.parametrize("seed", range(5))
def test_dawid_and_skene_are_as_published(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(3, (40,), generator=generator)
    random = torch.randint(3, (40, 4), generator=generator)
    votes = torch.where(torch.rand(40, 4, generator=generator) < 0.6, truth.unsqueeze(1), random)
    votes[torch.rand(40, 4, generator=generator) < 0.2] = NO_VOTE
    votes[:, 0] = truth
    found = annotators.dawid_skene(votes, 3, rounds=8)
    assert found.tolist() == slow_dawid_skene(votes.tolist(), 3, 8)


def test_draws_are_votes_of_the_image() -> None:
    votes = torch.tensor([[0, 1, 2, 2], [1, NO_VOTE, NO_VOTE, NO_VOTE]])
    drawn = annotators.draw(votes, 3, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 3) and drawn[1].tolist() == [1, NO_VOTE, NO_VOTE]
    assert all(drawn[0].tolist().count(label) <= votes[0].tolist().count(label) for label in range(3))


def test_a_table_is_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    lines = ["path,label_1,label_2,label_3,label_4"]
    for i in range(40):
        Image.new("L", (24, 24), 3 * i).save(tmp_path / f"{i}.png")
        said = [i % 2 if torch.rand((), generator=generator) < 0.9 else 2 for _ in range(4)]
        lines.append(",".join([f"{i}.png", *(("x", "y", "unknown")[label] for label in said)]))
    (tmp_path / "votes.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["annotators", str(tmp_path / "votes.csv"), "--out", str(tmp_path)])
    annotators.main()
    rows = annotators.read(tmp_path / "annotators.csv")
    assert {(row["votes"], row["planted"]) for row in rows} == {(1, 0), (2, 0), (3, 0), (3, 1)}
    assert len(rows) == 4 * 3 * 4 and {row["data"] for row in rows} == {"votes"}
    assert all(float(row["right"]) == 1 for row in rows if not row["planted"])  # other votes are no votes
    page = (tmp_path / "annotators.md").read_text(encoding="utf-8")
    assert "| majority vote | 100.0 ± 0.0 (100.0) |" in page
