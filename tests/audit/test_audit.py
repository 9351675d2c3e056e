"""The audit of runs and of arrays: against a slow count, with planted errors, and on disk."""

import csv
import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scanmix.audit import Audit, Evidence, score_labels
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.audit.evidence import same_images
from scanmix.config import UserError, install
from scanmix.data.examples import Examples
from scanmix.files.npy import read_array
from scanmix.model.dynamics import Snapshot, is_due, load_dynamics
from scanmix.training import open_run
from scanmix.training.loop import train

NAMES = ("cat", "dog", "owl")
NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2, "final_norm": True}


def grouped(count: int, draw: np.random.Generator) -> np.ndarray:
    """Features in three groups."""
    found: np.ndarray = np.eye(3)[np.arange(count) % 3] * 5 + draw.normal(size=(count, 3)) * 0.3
    return found


def made(count: int = 120, wrong: int = 30, seed: int = 0) -> tuple[Evidence, Tensor]:
    """Three groups in feature space, a model that is nearly sure, and labels of which the first few are wrong."""
    draw = np.random.default_rng(seed)
    true = np.arange(count) % 3
    labels = true.copy()
    labels[:wrong] = (true[:wrong] + 1) % 3
    features = grouped(count, draw)
    probs = np.full((2, count, 3), 0.05)
    for network in probs:
        network[np.arange(count), true] = 0.9
    probs += draw.uniform(0, 0.02, probs.shape)
    probs /= probs.sum(2, keepdims=True)
    found = evidence_from_arrays(labels, probs, features, NAMES)
    return found, torch.from_numpy(labels != true)


def test_wrong_labels_come_first_with_their_true_class() -> None:
    evidence, wrong = made()
    found = score_labels(evidence)
    assert set(found.order[:30].tolist()) == set(wrong.nonzero().flatten().tolist())
    assert (found["kind"][:30] == "wrong").all() and (found["kind"][30:] == "fine").all()
    true = [NAMES[i % 3] for i in found.order]
    assert found["suggested"].tolist() == true
    assert found.noise_rate.low <= 0.25 <= found.noise_rate.high
    assert found.noise_rate.value == pytest.approx(0.25, abs=0.02)
    assert found["expected_wrong"][-1] == pytest.approx(found.confusion.sum() - found.confusion.trace(), abs=0.01)
    assert (found["against"][:30] == "a b").all() and (found["against"][30:] == "").all()


def test_every_column_belongs_to_its_row() -> None:
    evidence, _ = made(seed=3)
    found = score_labels(evidence)
    assert all(len(column) == 120 for column in found.values()) and len(found) == len(list(found))
    unit = torch.nn.functional.normalize(torch.from_numpy(grouped(120, np.random.default_rng(3))), dim=1)
    assert found.neighbors is not None
    for row, place in enumerate(found.order.tolist()):
        assert found["id"][row] == str(place)
        assert found["given"][row] == NAMES[int(evidence.labels[place])]
        nearest = [j for j in (unit @ unit[place]).argsort(descending=True).tolist() if j != place][:10]
        assert sorted(found.order[found.neighbors[row]].tolist()) == sorted(nearest)
        alike = sum(int(evidence.labels[j] == evidence.labels[place]) for j in nearest) / 10
        assert found["neighbor_agreement"][row] == pytest.approx(alike)
        own = found.class_probs[row][int(evidence.labels[place])]
        assert own == pytest.approx(found["p_clean"][row], abs=1e-5)
        assert found["suggested"][row] == NAMES[int(found.class_probs[row].argmax())]
        assert found["confidence"][row] == found.class_probs[row].max()


def test_the_way_there_counts_more_than_the_end() -> None:
    """A network that knows every label by heart is no witness against any; how late it learned them is."""
    evidence, wrong = made()
    by_heart = torch.nn.functional.one_hot(evidence.labels, 3).float() * 0.97 + 0.01
    late = torch.where(wrong, torch.tensor([[2.0], [1.0], [0.0]]), torch.tensor([[0.5], [0.1], [0.0]]))
    shots = [
        Snapshot(e + 1, loss.expand(1, -1).half(), evidence.labels.expand(1, -1).int()) for e, loss in enumerate(late)
    ]
    alone = dataclasses.replace(evidence, probs=by_heart, neighbors=None, similarity=None)
    alone = dataclasses.replace(alone, held_out=False)
    assert (score_labels(alone)["p_clean"] > 0.99).all()
    found = score_labels(dataclasses.replace(alone, snapshots=shots))
    assert set(found.order[:30].tolist()) == set(range(30))
    assert found.epochs == (1, 2, 3) and found.losses.shape == (3, 1, 120)
    assert found["loss_mean"][0] == pytest.approx(1.0, abs=1e-3) and found["loss_last"][0] == 0
    assert "neighbor_vote" not in found and found.neighbors is None


def test_the_same_picture_under_two_labels_names_its_twins() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).repeat(1, 1, 8, 8)
    images[4], images[5], images[6:] = images[0], images[1], images[2]
    labels = torch.tensor([0, 1, 2, 0, 1, 1, 0, 0, 1, 0])  # 0 and 4, 2 and 6-9: other labels; 1 and 5: one label twice
    pictures = same_images(images)
    assert pictures.tolist() == [0, 1, 2, 3, 0, 1, 2, 2, 2, 2]
    evidence, _ = made(10, 0)
    found = score_labels(dataclasses.replace(evidence, labels=labels, ids=tuple("abcdefghij"), pictures=pictures))
    rows = {name: row for row, name in enumerate(found["id"].tolist())}
    told = {name: found["reason"][row] for name, row in rows.items() if found["kind"][row] == "duplicate"}
    twins = {name: reason.partition(": ")[2] for name, reason in told.items()}
    assert twins == {"a": "e", "e": "a", "c": "g, h, i", "g": "c, i", "h": "c, i", "i": "c, g, h", "j": "c, i"}


def test_labels_that_were_set_aside_are_told_from_those_that_were_learned() -> None:
    evidence, wrong = made()
    assert set(score_labels(evidence)["suggestion"]) == {"out_of_sample"}  # arrays: held out, as is asked for
    evidence = dataclasses.replace(evidence, held_out=False)
    assert set(score_labels(evidence)["suggestion"]) == {"in_sample"}
    found = score_labels(dataclasses.replace(evidence, set_aside=wrong))
    assert (found["suggestion"][:30] == "set_aside").all() and (found["suggestion"][30:] == "in_sample").all()
    assert set(score_labels(dataclasses.replace(evidence, self_supervised=True))["suggestion"]) == {"out_of_sample"}


def test_on_disk_it_says_the_same(tmp_path: Path) -> None:
    found = score_labels(made()[0])
    found.to_csv(tmp_path / "labels.csv")
    found.to_json(tmp_path / "audit.json")
    found.to_parquet(tmp_path / "labels.parquet")
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["reason"] for row in rows] == found["reason"].tolist()
    assert float(rows[3]["p_clean"]) == pytest.approx(found["p_clean"][3], abs=1e-4)
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["labels"] == 120 and sum(summary["kinds"].values()) == 120
    assert summary["confused"][0]["expected"] == pytest.approx(10, abs=1)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "labels.parquet")
    assert table.column("id").to_pylist() == found["id"].tolist() and table.column_names == list(found)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = score_labels(made()[0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=re.escape(f"labels.parquet needs pyarrow; install it with: {install('parquet')}")
    ):
        found.to_parquet(tmp_path / "labels.parquet")


def small(seed: int = 0) -> Examples:
    """Bright and dark squares, a sixth of them under the wrong name."""
    draw = torch.Generator().manual_seed(seed)
    true = torch.arange(48) % 2
    images = (60 + 120 * true.view(-1, 1, 1, 1) + 40 * torch.rand(48, 1, 8, 8, generator=draw)).to(torch.uint8)
    labels = true.clone()
    labels[:8] = 1 - labels[:8]
    return Examples(images, labels, ("dark", "bright"), tuple(map(str, range(48))), flip=False)


def trained(method: str, folder: Path | None, **more: Any) -> Any:
    settings = {"epochs": 4, "network": NETWORK, "progress": False, "threads": 1, **more}
    return train(small(), method=method, out=folder, **settings)


def same_audit(one: Audit, other: Audit) -> bool:
    """Whether nothing at all differs."""
    arrays = ("order", "class_probs", "neighbors", "losses", "confusion")
    return (
        list(one) == list(other)
        and all(one[name].tolist() == other[name].tolist() for name in one)
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        and (one.class_names, one.epochs, one.noise_rate) == (other.class_names, other.epochs, other.noise_rate)
    )


def test_a_run_in_memory_and_on_disk_are_audited_alike(tmp_path: Path) -> None:
    run = trained("dividemix", tmp_path / "run", warmup=2, batch_size=8)
    here, there = run.audit(), open_run(tmp_path / "run").audit(small())
    assert isinstance(here, Audit) and same_audit(here, there)
    assert here.epochs == (1, 2, 3, 4) and here.losses.shape == (4, 2, 48)
    assert set(here["suggestion"]) <= {"set_aside", "in_sample"}
    memory = trained("dividemix", None, warmup=2, batch_size=8)
    assert same_audit(memory.audit(), here)


def test_what_set_aside_means_is_the_last_division(tmp_path: Path) -> None:
    run = trained("dividemix", tmp_path / "run", warmup=2, batch_size=8)
    last = load_dynamics(tmp_path / "run", 4)[-1]
    assert last.p_clean is not None
    evidence = run.evidence()
    assert evidence.set_aside is not None
    for i in range(48):
        assert bool(evidence.set_aside[i]) == all(float(p) <= 0.5 for p in last.p_clean[:, i])


def test_data_from_memory_must_be_given_again_where_nothing_was_kept(tmp_path: Path) -> None:
    run = trained("cross_entropy", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evidence")
    assert same_audit(run.audit(), open_run(tmp_path / "run").audit(small()))
    with pytest.raises(UserError, match="came from memory"):
        open_run(tmp_path / "run").audit()


def test_about_twenty_snapshots_and_always_the_last() -> None:
    for epochs in (1, 7, 20, 21, 37, 120, 300):
        due = [epoch for epoch in range(1, epochs + 1) if is_due(epoch, epochs)]
        assert due[-1] == epochs and len(due) == min(epochs, 20)


def test_a_damaged_snapshot_is_told(tmp_path: Path) -> None:
    trained("cross_entropy", tmp_path / "run")
    broken = tmp_path / "run" / "trajectory" / "00002.safetensors"
    broken.write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        load_dynamics(tmp_path / "run", 4)
    broken.unlink()
    assert [shot.epoch for shot in load_dynamics(tmp_path / "run", 3)] == [1, 3]


GOOD = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("labels", "probs", "more", "message"),
    [
        (np.array([0, 1]), GOOD, {}, r"for N = 2 labels, not \(3, 2\)"),
        (np.array([0, 1, 2]), GOOD, {}, r"whole numbers 0..1"),
        (np.array([0, 1, -1]), GOOD, {}, r"whole numbers 0..1"),
        (np.array(["a", "b", "c"]), GOOD, {"class_names": ["a", "b"]}, "'c' is none of the classes a, b"),
        (np.array([0, 1, 1]), GOOD * 2, {}, "row 0 does not"),
        (np.array([0, 1, 1]), np.log(GOOD), {}, "softmax of logits"),
        (np.array([0, 1, 1]), GOOD, {"features": np.zeros((2, 5))}, r"of shape \(3, D\)"),
        (np.array([0, 1, 1]), GOOD, {"class_names": ["a"]}, "1 class names for 2 columns"),
        (np.array([0, 1, 1]), GOOD, {"ids": ["a", "a", "b"]}, "3 different ids"),
        (np.array([[0], [1], [1]]), GOOD, {}, "one column"),
    ],
)
def test_arrays_that_do_not_fit_are_told(labels: Any, probs: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evidence_from_arrays(labels, probs, **more)


ROWS = 4
EVEN = np.full((ROWS, 2), 0.5)


def changed(array: Any, row: int, value: Any) -> Any:
    other = np.array(array)
    other[row] = value
    return other


@pytest.mark.parametrize(
    ("labels", "probs", "more", "message"),
    [
        ([0, 1, 0, 7], EVEN, {}, r"0..1; row 3 holds 7 \(1 such of 4\)"),
        ([0, 1.5, 0, 1], EVEN, {}, "row 1 of labels holds 1.5, which is no whole number"),
        ([0, 1, np.nan, np.inf], EVEN, {}, r"row 2 of labels holds nan.* \(2 such of 4\)"),
        (["a", "b", "nan", "a"], EVEN, {}, "row 2 of labels holds 'nan', which stands for a missing label"),
        (np.array(["a", None, "b", "a"], object), EVEN, {}, "row 1 of labels holds None, which is neither"),
        (np.array(["a", 1, "b", "a"], object), EVEN, {}, "row 1 of labels holds 1; the rows above"),
        (np.array(0), EVEN, {}, "one column"),
        (np.array([0, 1, 0, 1], "M8[s]"), EVEN, {}, "names or whole numbers, not datetime64"),
        ([0, 1, 0, 1], changed(EVEN, 2, [np.nan, 1]), {}, "row 2 holds nan"),
        ([0, 1, 0, 1], changed(EVEN, 1, [np.inf, 0]), {}, "row 1 holds inf"),
        ([0, 1, 0, 1], changed(EVEN, 3, [-0.5, 1.5]), {}, "row 3 holds -0.5"),
        ([0, 1, 0, 1], changed(EVEN, 3, [0.5, 0.6]), {}, "must sum to 1; row 3 does not"),
        ([0, 1, 0, 1], np.eye(2, dtype=int)[[0, 1, 0, 1]], {}, "not int64; take the softmax"),
        ([0, 1, 0, 1], np.zeros((0, ROWS, 2)), {}, r"not \(0, 4, 2\)"),
        ([0, 1, 0, 1], EVEN, {"features": changed(np.ones((ROWS, 3)), 1, np.nan)}, "row 1 of features holds"),
        ([0, 1, 0, 1], EVEN, {"features": changed(np.ones((ROWS, 3)), 2, np.inf)}, "row 2 of features holds"),
        ([0, 1, 0, 1], EVEN, {"features": changed(np.ones((ROWS, 3)), 3, 1e25)}, "row 3 of features .*too large"),
        ([0, 1, 0, 1], EVEN, {"class_names": ["a", "a"]}, "2 different ones"),
        ([0, 1, 0, 1], EVEN, {"class_names": ["a", ""]}, "none empty"),
        (["a", "a", "a", "a"], EVEN, {}, "1 class names for 2 columns of probabilities; name .* --classes"),
    ],
)
def test_a_row_that_holds_what_it_cannot_is_named(labels: Any, probs: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evidence_from_arrays(np.asarray(labels), probs, **more)


def test_numbers_as_text_mean_what_numbers_mean() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 300)
    scores = rng.normal(size=(300, 12))
    scores[np.arange(300), labels] += 5
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    numbers = evidence_from_arrays(labels, probs)
    for same in (
        labels.astype(str),
        labels.astype(str).astype("S"),
        labels.astype(float),
        labels.astype(float).astype(str),
    ):
        found = evidence_from_arrays(same, probs)
        assert torch.equal(found.labels, numbers.labels) and found.class_names == numbers.class_names
    as_text = np.argsort(np.arange(12).astype(str))
    with pytest.raises(UserError, match=r"do not seem to stand in the order 0, 1, 2.* with --classes"):
        evidence_from_arrays(labels.astype(str), probs[:, as_text])
    named = evidence_from_arrays(labels.astype(str), probs[:, as_text], class_names=[str(c) for c in as_text])
    assert named.class_names[2] == "10" and named.labels[0] == named.class_names.index(str(labels[0]))


def test_names_and_numbers_are_both_labels() -> None:
    named = evidence_from_arrays(np.array(["b", "a", "b"]), GOOD)
    assert named.class_names == ("a", "b") and named.labels.tolist() == [1, 0, 1]
    assert evidence_from_arrays(np.array([1, 0, 1]), GOOD).class_names == ("0", "1")


def test_other_files_in_the_place_of_an_array_are_told_apart(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "p.pt")
    (tmp_path / "y.csv").write_text("label\ncat\n")
    (tmp_path / "none.npy").write_bytes(b"")
    np.savez(tmp_path / "p.npz", np.zeros(2))
    told = {"p.pt": "a file of PyTorch", "y.csv": "text, such as a CSV", "none.npy": "empty", "p.npz": "several arrays"}
    for name, words in told.items():
        with pytest.raises(UserError, match=words):
            read_array(tmp_path / name)


def test_objects_in_an_array_file_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", first=np.zeros(2), second=np.zeros(2))
    with pytest.raises(UserError, match="several arrays"):
        read_array(tmp_path / "two.npz")
    for path, message in ((tmp_path / "bad.npy", "no plain .npy"), (tmp_path / "none.npy", "cannot be read")):
        with pytest.raises(UserError, match=message):
            read_array(path)
