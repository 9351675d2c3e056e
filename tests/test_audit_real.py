"""The table of the noise model on real pictures: what is measured, what is kept, and what the page counts."""

import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from results import audit_real, audit_real_page, noise_model_million, real_data
from results.audit_real import Task
from scanmix.blocks.pictures import image_features

FOLDERS = Namespace(data=Path("missing"), fashion=None, cache=Path("missing"))


@pytest.fixture(scope="module")
def digits() -> real_data.Pool:
    return real_data.pool("digits", FOLDERS.data, None)


def test_digits_are_measured_once(tmp_path: Path) -> None:
    """Without noise only the first seed is measured; what has a row is left out; the csv gives back what was added."""
    known = {("digits", "pixels", noise, 0) for noise in audit_real.NOISES["digits"] if noise != "symmetric:0.5"}
    path = tmp_path / "audit-real.csv"
    for row in audit_real.missing("digits", "pixels", [0], known, FOLDERS):
        audit_real.add(row, path)
    (row,) = audit_real.read(path)
    assert (row["noise"], row["count"]) == ("symmetric:0.5", 1797)
    assert abs(row["wrong"] - 0.45) < 0.03 and abs(row["estimated"] - row["wrong"]) < 0.05
    assert row["brier"] < 0.05 and row["ap"] > 0.98 and row["right_after"] > 0.9
    assert 0.3 < row["cleanlab_estimated"] < 0.6 and row["cleanlab_ap"] > 0.95
    page = audit_real_page.page([row])
    assert "1 settings, 1 rows, seeds 0" in page and "| pixels | symmetric:0.5 | 1 |" in page


def test_the_page_counts_settings_alike() -> None:
    """A setting with one seed weighs as much as one with two; NaN of right labels is not shown."""
    row = dict.fromkeys(audit_real.FIELDS, 0.1) | {
        "data": "made", "features": "pixels", "noise": "symmetric:0.2", "seed": 0, "low": 0.05, "high": 0.15,
    }  # fmt: skip
    off = row | {"seed": 1, "estimated": 0.3, "low": 0.2, "high": 0.4}
    right = row | {
        "noise": "none",
        "wrong": 0.0,
        "estimated": 0.01,
        "low": 0.0,
        "ap": math.nan,
        "cleanlab_ap": math.nan,
    }
    page = audit_real_page.page([row, off, right])
    assert "| the interval holds the truth | 2 of 3 | 75.0% | 85% | no |" in page
    assert "| ... or an interval that holds the truth | 1 of 2 | 50.0% | 90% | no |" in page
    assert (
        "- made pixels symmetric:0.2: the interval holds the truth in 1 of 2; the rate is off by 10.0 points;" in page
    )
    assert "nan" not in page


def test_patches_and_pixels_are_compared_on_what_both_have() -> None:
    row = dict.fromkeys(audit_real.FIELDS, 0.1) | {
        "data": "made", "features": "pixels", "noise": "symmetric:0.2", "seed": 0, "low": 0.05, "high": 0.15,
    }  # fmt: skip
    patches = row | {"features": "patches", "estimated": 0.3, "low": 0.2, "high": 0.5, "ap": 0.7}
    page = " ".join(audit_real_page.page([row, patches, row | {"data": "other"}]).split())
    assert (
        "On the 1 settings that have both, patches: intervals are 30 points wide and hold the truth in 0 of 1" in page
    )
    assert "the mean average precision is 0.700; pixels: intervals are 10 points wide" in page
    assert "further off, by more than 2 points, for made symmetric:0.2." in page
    assert "settings that have both" not in audit_real_page.page([row])


def test_features_of_patches_are_those_of_an_audit_of_what_is_drawn() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 24, 24), dtype=np.uint8)
    source, chosen = real_data.Pool(np.arange(9) % 2, images), np.array([1, 4, 5, 8])
    found = real_data.features("patches", "made", source, chosen, FOLDERS.cache)
    expected = image_features(torch.from_numpy(images[chosen][:, None]))
    assert np.array_equal(found, expected.numpy())
    pixels = real_data.features("pixels", "made", source, chosen, FOLDERS.cache)
    assert np.allclose(pixels[2], images[5].ravel() / 255)


def test_class_sizes_fall_to_a_tenth(digits: real_data.Pool) -> None:
    chosen = audit_real.choose(digits, 0, True)
    sizes = np.sort(np.bincount(digits.labels[chosen]))
    assert sizes[-1] == 174 and sizes[0] == 17 and len(np.unique(chosen)) == len(chosen)
    assert (audit_real.choose(digits, 1, True)[:100] != chosen[:100]).any()
    assert len(audit_real.choose(replace(digits, per_class=20), 0, False)) == 200


def test_a_vote_is_one_of_those_for_an_emotion(digits: real_data.Pool) -> None:
    votes = np.full((len(digits.labels), 10), -1)
    votes[:, 4:6] = [[3, 7]]
    source = replace(digits, votes=votes)
    chosen = np.arange(len(votes))
    drawn = audit_real.given(Task("ferplus", "pixels", "vote", 0), source, chosen, torch.from_numpy(digits.labels))
    assert set(drawn.tolist()) == {3, 7} and 0.45 < float((drawn == 3).float().mean()) < 0.55


def test_the_classifiers_are_held_out() -> None:
    """Random labels cannot be guessed; a class that is seen can be."""
    draws = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (300,), generator=draws)
    rows = 10 * torch.eye(3)[truth] + torch.randn(300, 3, generator=draws)
    near = torch.cdist(rows, rows).fill_diagonal_(99).argsort(1)[:, :100]
    seen = audit_real.Seen(np.arange(300), near, rows, rows, 0.0)
    for labels, least, most in ((truth, 0.99, 1.0), (torch.randint(3, (300,), generator=draws), 0.2, 0.45)):
        fold = torch.randperm(300, generator=draws) % 5
        found = [audit_real.voted(near, labels, 3, fold, 10), *audit_real.logistic(rows, labels, 3, fold)]
        for probs in found:
            torch.testing.assert_close(probs.sum(1), torch.ones(300))
            assert least <= float((probs.argmax(1) == labels).float().mean()) <= most
    assert audit_real.classified(seen, truth, 3, 0)[2] > -0.2


def test_a_million_in_small() -> None:
    found = noise_model_million.measure(3000, 1)
    assert 0.7 < found["purity"] < 0.9 and abs(found["estimated"] - found["wrong"]) < 0.1
    text = noise_model_million.page(3000, 1, json.loads(json.dumps(found)))
    assert "3,000 examples of 10 classes" in text and "The goal was 600 s and 6 GB." in text


def test_the_best_monotone_recalibration() -> None:
    """The truth is 0 1 0 1: the two in the middle are pooled, whatever the scale; a constant has the variance."""
    right = torch.tensor([False, True, False, True])
    for confidence in ([0.1, 0.2, 0.3, 0.4], [1e-38, 2e-38, 0.5, 0.9]):
        assert audit_real.recalibrated(torch.tensor(confidence), right) == pytest.approx(2 * 0.25 / 4)
    assert audit_real.recalibrated(torch.full((4,), 0.7), right) == pytest.approx(0.25)
    upside_down = torch.tensor([0.9, 0.8, 0.8, 0.1])
    assert audit_real.recalibrated(upside_down, right) == pytest.approx(0.25), "a constant is the best"
