"""Training on what several annotators said: the consensus is the given label, in a run and when it is loaded again."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scanmix
from scanmix.blocks.annotators import fit_annotators, majority
from scanmix.data.examples import Examples
from scanmix.report import write_report
from scanmix.training.consensus import with_consensus
from scanmix.training.loop import resume
from tests.tiny import NETWORK

COUNT = 240


@pytest.fixture
def voted(tmp_path: Path) -> Examples:
    """Images of three classes; the first annotator is good, the others are often wrong in their own way."""
    draw = np.random.default_rng(0)
    lines = ["path,label_1,label_2,label_3"]
    for i in range(COUNT):
        pixels = draw.integers(0, 60, (8, 8)) + 90 * (i % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i:03d}.png")
        said = [i % 3 if draw.random() < right else int(draw.integers(3)) for right in (0.97, 0.3, 0.3)]
        lines.append(",".join([f"{i:03d}.png", *("xyz"[label] for label in said)]))
    (tmp_path / "votes.csv").write_text("\n".join(lines), encoding="utf-8")
    examples, _ = scanmix.load(tmp_path / "votes.csv", size=8)
    return examples


def test_labels_become_the_consensus_once(voted: Examples) -> None:
    assert voted.votes is not None
    consensus = fit_annotators(voted.votes, 3).consensus
    assert torch.equal(voted.labels, majority(voted.votes, 3)) and not torch.equal(voted.labels, consensus)
    found = with_consensus(voted)
    assert torch.equal(found.labels, consensus) and found.source == voted.source
    assert torch.equal(with_consensus(found).labels, consensus)
    assert with_consensus(dataclasses.replace(voted, votes=None, annotators=())).labels is voted.labels


def test_what_a_person_decided_stays(voted: Examples) -> None:
    assert voted.votes is not None
    consensus = fit_annotators(voted.votes, 3).consensus
    row = int((consensus != voted.labels).nonzero()[0])
    decided = torch.zeros(COUNT, dtype=torch.int8)
    decided[row] = 1
    found = with_consensus(dataclasses.replace(voted, decided=decided))
    assert found.labels[row] == voted.labels[row]
    assert torch.equal(found.labels[decided == 0], consensus[decided == 0])
    other = 3 - int(voted.labels[row]) - int(consensus[row])
    corrected = dataclasses.replace(voted, labels=voted.labels.index_fill(0, torch.tensor([row]), other))
    assert int(with_consensus(corrected).labels[row]) == other


def test_a_run_trains_on_the_consensus_and_shows_the_votes(voted: Examples, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = scanmix.train(voted, method="cross_entropy", out=folder, epochs=2, batch_size=16, network=NETWORK)
    expected = with_consensus(voted)
    assert run.settings.fingerprint == expected.fingerprint()
    opened = scanmix.open_run(folder)
    assert torch.equal(opened.training_data().labels, expected.labels)
    assert resume(folder).finished
    audit = opened.audit()
    with (folder / "labels.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for i, name in enumerate(voted.ids):
        row = rows[name]
        assert row["given"] == row["consensus"] == voted.class_names[int(expected.labels[i])]
        assert sum(int(part.rpartition(" ")[2]) for part in row["votes"].split(", ")) == 3
        assert row["agreement"] in ("0.3333", "0.6667", "1.0000") and 0.33 < float(row["consensus_prob"]) <= 1
    assert [each.annotator for each in audit.votes.annotators][-1] == "label_1"
    page = write_report(folder).read_text(encoding="utf-8")
    assert '<section id="annotators">' in page and "label_2" in page and "votes: " in page
    audit.to_json(tmp_path / "audit.json")
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert [set(each) for each in summary["annotators"]] == [{"annotator", "votes", "quality", "standard_error"}] * 3


def test_a_run_that_was_stopped_goes_on_with_the_consensus(
    voted: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scanmix.training.epochs as epochs

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    folder = tmp_path / "run"
    really: Callable[..., None] = vars(epochs)["save_checkpoint"]
    calls: Iterator[Callable[..., None]] = iter([really, really, stop])
    monkeypatch.setattr(epochs, "save_checkpoint", lambda *given: next(calls)(*given))
    settings = {"method": "cross_entropy", "epochs": 3, "batch_size": 16, "network": NETWORK, "threads": 1}
    with pytest.raises(Stopped):
        scanmix.train(voted, out=folder, **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(epochs, "save_checkpoint", really)
    ended, whole = resume(folder), scanmix.train(voted, out=tmp_path / "whole", **settings)  # type: ignore[arg-type]
    assert (folder / "labels.csv").read_bytes() == (tmp_path / "whole" / "labels.csv").read_bytes()
    assert ended.finished and whole.finished
