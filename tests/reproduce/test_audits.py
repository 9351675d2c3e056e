"""The comparison of audits: every auditor measured, kept, and on the page."""

import csv
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import scanmix
from scanmix.config import UserError, install
from scanmix.reproduce import audits
from scanmix.reproduce.audits import AUDITORS, run_audits

NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2, "final_norm": True}
FAST = {
    "cross_entropy": {"epochs": 1, "network": NETWORK, "threads": 1},
    "scanmix": {
        "epochs": 2, "network": NETWORK, "threads": 1, "warmup": 1, "mild_warmup": 0, "minimum_steps": 0,
        "pretrain": {"epochs": 1}, "clustering": {"epochs": 1},
    },
}  # fmt: skip


def test_every_auditor_is_measured_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanlab")
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    scores = run_audits(tmp_path, seeds=1, rates=(0.5,), folds=2, overrides=FAST)
    assert [score.auditor for score in scores] == list(AUDITORS)
    assert all(0 <= share <= 1 for s in scores for share in (s.average_precision, s.precision, s.recall, s.suggested))
    assert {score.actual for score in scores} == {scores[0].actual} and 0.4 < scores[0].actual < 0.5
    with (tmp_path / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["average_precision"]) for row in rows] == [score.average_precision for score in scores]
    page = (tmp_path / "audit.md").read_text()
    assert all(title in page for title in AUDITORS.values()) and "Finished: 4 of 12" in page

    def no_training(*given: object, **more: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(audits, "train", no_training)
    assert run_audits(tmp_path, seeds=1, rates=(0.5,), folds=2, overrides=FAST) == scores


def test_without_cleanlab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(UserError, match=re.escape(install("compare"))):
        run_audits(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "precision", "suggested"), [(0.2, 0.97, 0.95), (0.5, 0.97, 0.93), (0.8, 0.93, 0.88)])
def test_scanmix_finds_the_wrong_labels_among_the_digits(rate: float, precision: float, suggested: float) -> None:
    """Means over three seeds of runs with the shipped recipe, printed with `-s`: about four minutes a rate."""
    digits = scanmix.load("digits")[0]
    found = []
    for seed in range(3):
        noisy = scanmix.add_noise(digits, "symmetric", rate=rate, seed=seed)
        audit = scanmix.train(noisy, method="scanmix", seed=seed, threads=1, progress=False).audit()
        place = {name: i for i, name in enumerate(noisy.ids)}
        assert noisy.true_labels is not None
        truth = noisy.true_labels[[place[name] for name in audit["id"]]].numpy()
        names = np.array(noisy.class_names)
        wrong = names[truth] != audit["given"].astype(str)
        ranked = average_precision_score(wrong, -np.arange(len(wrong)))
        right = (audit["suggested"].astype(str) == names[truth])[wrong].mean()
        print(f"{rate:.0%}, seed {seed}: average precision {ranked:.4f}, suggestions right {right:.1%}")
        found.append((ranked, right))
    ranks, rights = zip(*found, strict=True)
    assert statistics.fmean(ranks) >= precision
    assert statistics.fmean(rights) >= suggested
