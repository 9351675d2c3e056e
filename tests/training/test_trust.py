"""Runs on data of which some labels are known to be right: who is told, what is kept of it, and how runs go on."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.data.corrections import apply_corrections
from scanmix.data.examples import Examples
from scanmix.data.readers.vectors import to_vectors
from scanmix.training import Run, resolve
from scanmix.training.inputs import trusted_labels
from scanmix.training.loop import resume
from tests.tiny import NETWORK, settings


@pytest.fixture(scope="module")
def noisy() -> Examples:
    digits, _ = scanmix.load("digits", per_class=8)
    return scanmix.add_noise(digits, "symmetric", rate=0.5, seed=0)


@pytest.fixture
def reviewed(noisy: Examples, tmp_path: Path) -> Examples:
    """The same; the first twenty labels, many of which are wrong, are kept by a person. It loads again."""
    table = tmp_path / "kept.csv"
    rows = [f"{noisy.ids[i]},{noisy.class_names[int(noisy.labels[i])]},keep" for i in range(20)]
    table.write_text("\n".join(["id,label,decision", *rows]) + "\n")
    return apply_corrections(noisy, table)


def trained(examples: Examples, out: Path | None = None, method: str = "bootstrap", **more: Any) -> Run:
    asked: dict[str, Any] = {**settings(method, epochs=4), **({"trust": 0.3} if method == "bootstrap" else {}), **more}
    return scanmix.train(examples, method=method, out=out, network=NETWORK, threads=1, progress=False, **asked)


def same(first: Run, second: Run) -> bool:
    pairs = zip(first.model.predictor.parameters(), second.model.predictor.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def cut(examples: Examples, out: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """A run that is stopped in its third epoch."""
    honest = scanmix.METHODS["bootstrap"].epoch

    def stopped(self: Any, state: Any, data: Any, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return honest(self, state, data, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(scanmix.METHODS["bootstrap"], "epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(examples, out, **more)


@pytest.mark.parametrize("trust", [True, False])
def test_a_method_is_told_what_a_person_decided(
    trust: bool, reviewed: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, seen = scanmix.METHODS["bootstrap"].epoch, []

    def watched(self: Any, state: Any, data: Any, epoch: int) -> dict[str, float]:
        seen.append(data.trusted)
        return honest(self, state, data, epoch)

    monkeypatch.setattr(scanmix.METHODS["bootstrap"], "epoch", watched)
    trained(reviewed, labels={"trust_decided": trust})
    assert len(seen) == 4
    for found in seen:
        assert (found is not None) == trust
        assert found is None or found.tolist() == [True] * 20 + [False] * 60


def test_trust_changes_what_is_learned_and_can_be_left_out(noisy: Examples, reviewed: Examples) -> None:
    plain, off = trained(noisy), trained(reviewed, labels={"trust_decided": False})
    assert same(plain, off) and not same(plain, trained(reviewed))
    assert plain.settings.trusted_fingerprint is None and off.settings.trusted_fingerprint is None


def test_a_run_that_trusts_labels_goes_on_with_the_same_bits(
    reviewed: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(reviewed, tmp_path / "whole")
    assert whole.settings.trusted_fingerprint is not None
    cut(reviewed, tmp_path / "cut", monkeypatch)
    assert same(whole, resume(tmp_path / "cut", progress=False))
    cut(reviewed, tmp_path / "again", monkeypatch)
    assert same(whole, trained(reviewed, tmp_path / "again"))


@pytest.mark.parametrize("resumed", [True, False])
def test_a_run_of_an_older_version_goes_on_without_trust(
    resumed: bool, reviewed: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trusted nobody, and its run.toml has no word of it; by `resume` and by the same line it ends as it began."""
    without = trained(reviewed, labels={"trust_decided": False})
    with monkeypatch.context() as patch:
        patch.setattr("scanmix.training.loop.trusted_fingerprint", lambda _: None)
        cut(reviewed, tmp_path / "run", monkeypatch)
    written = tmp_path / "run" / "run.toml"
    text = written.read_text(encoding="utf-8")
    assert "[labels]\ntrust_decided = true\n" in text and "trusted_fingerprint" not in text
    written.write_text(text.replace("[labels]\ntrust_decided = true\n", ""), encoding="utf-8")
    again = resume(tmp_path / "run", progress=False) if resumed else trained(reviewed, tmp_path / "run")
    assert same(again, without) and again.settings.trusted_fingerprint is None


def test_a_run_does_not_go_on_with_other_trusted_labels(
    reviewed: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(reviewed, tmp_path / "run", monkeypatch)
    more = reviewed.trusting(np.arange(80) < 21)
    with pytest.raises(UserError, match=r"holds another run \(which labels are trusted\); choose another folder"):
        trained(more, tmp_path / "run")
    with pytest.raises(UserError, match=r"holds another run \(labels.trust_decided .*; which labels are trusted\)"):
        trained(reviewed, tmp_path / "run", labels={"trust_decided": False})
    began = scanmix.open_run(tmp_path / "run").settings
    with pytest.raises(UserError, match="other labels are trusted now than when the run began"):
        trusted_labels(more, began)
    assert trusted_labels(more, dataclasses.replace(began, trusted_fingerprint=None)) is None


def test_a_finished_run_stays_as_it_is_whatever_is_decided_later(reviewed: Examples, tmp_path: Path) -> None:
    first = trained(reviewed, tmp_path / "run")
    later = trained(reviewed.trusting(np.arange(80) < 30), tmp_path / "run")
    assert same(first, later) and len(later.metrics) == 4


def test_the_default_is_no_part_of_the_config_hash() -> None:
    plain = resolve("bootstrap", "digits")
    assert plain.labels.trust_decided and "labels" not in plain.hashed_settings()
    off = resolve("bootstrap", "digits", overrides={"labels.trust_decided": False})
    assert off.hashed_settings()["labels"] == {"trust_decided": False}
    assert "trusted_fingerprint" not in plain.hashed_settings()
    some = dataclasses.replace(plain, trusted_fingerprint="f00")
    assert len({each.config_hash() for each in (plain, off, some)}) == 3
    with pytest.raises(UserError, match=r"labels\.trust_decided = 'yes'"):
        resolve("bootstrap", "digits", overrides={"labels.trust_decided": "yes"})


def test_every_process_knows_what_is_trusted(noisy: Examples) -> None:
    """From memory, so the examples are handed to the other process; it would refuse another hash of its settings."""
    known = dataclasses.replace(noisy.trusting(np.arange(80) < 20), source=None)
    run = trained(known, devices=2)
    assert run.finished and run.settings.trusted_fingerprint is not None


def test_trusted_labels_help() -> None:
    """60 % symmetric noise on the digits, as vectors of pixels; a tenth of the labels is known to be right."""

    def vectors(examples: Examples) -> Examples:
        pixels = examples.images.flatten(1).numpy() / 16
        return to_vectors(pixels, examples.labels.tolist(), examples.class_names, ids=examples.ids, name="pixels")

    train_set, test_set = (vectors(part) for part in scanmix.load("digits") if part is not None)
    known = torch.rand(len(train_set), generator=torch.Generator().manual_seed(3)) < 0.1
    noisy = scanmix.add_noise(train_set.trusting(known), "symmetric", rate=0.6, seed=3)
    found = [
        scanmix.train(
            noisy, test=test_set, method="pes", seed=3, epochs=30, threads=1, progress=False,
            labels={"trust_decided": trust},
        ).last_accuracy or 0.0
        for trust in (True, False)
    ]  # fmt: skip
    assert found[0] >= found[1] > 0.8
