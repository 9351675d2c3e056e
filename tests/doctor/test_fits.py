"""The time of a classifier that is fitted at once: how it grows, and that an estimate has it."""

import time

import pytest
import torch

from scanmix.blocks.neighbors import EXACT_UP_TO
from scanmix.data.batches import TrainingData
from scanmix.data.examples import Examples
from scanmix.data.readers.vectors import to_vectors
from scanmix.distributed.engine import Engine
from scanmix.doctor import fits, measure
from scanmix.doctor.fits import fitting
from scanmix.doctor.measure import estimate
from scanmix.methods import Method
from scanmix.training import RunSettings, resolve

FIT, SEARCH = 3e-6, 5e-9
"""Seconds of a row and a class, and of a pair of rows, on a machine of the tests."""


def settings(method: str) -> RunSettings:
    return resolve(method, "some-data", kind="vector", device="cpu")


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything takes exactly as long as it grows."""

    def search(data: TrainingData) -> float:
        return SEARCH * len(data) ** 2

    def epoch(method: Method, data: TrainingData, engine: Engine) -> float:
        return FIT * len(data) * data.num_classes + method.about.searches * search(data)

    monkeypatch.setattr(fits, "epoch_of", epoch)
    monkeypatch.setattr(fits, "search_of", search)


@pytest.mark.usefixtures("even")
@pytest.mark.parametrize("classes", [2, 10, 300])
@pytest.mark.parametrize("count", [2, 700, 3000, 50_000])
def test_a_fit_grows_with_rows_and_classes_and_a_search_with_pairs(count: int, classes: int) -> None:
    fit, search = FIT * count * classes, SEARCH * count**2
    assert fitting(settings("linear"), count, classes, 4) == pytest.approx(fit)
    for method in ("propagate", "neighbors", "wann"):
        assert fitting(settings(method), count, classes, 4) == pytest.approx(fit + search)


@pytest.mark.usefixtures("even")
def test_an_approximate_search_grows_with_rows_alone() -> None:
    found = fitting(settings("propagate"), 2 * EXACT_UP_TO, 2, 4)
    assert found == pytest.approx(2 * fitting(settings("propagate"), EXACT_UP_TO, 2, 4))


def test_made_rows_are_of_this_shape_and_told_apart() -> None:
    data = fits.made(200, 5, 30, Engine())
    rows = data.eval_view(data.everything)
    assert rows.shape == (200, 30) and data.num_classes == 5 and len(data.labels.unique()) == 5
    true = torch.arange(200) % 5
    centers = torch.stack([rows[true == c].mean(0) for c in range(5)])
    assert float((torch.cdist(rows, centers).argmin(1) == true).float().mean()) > 0.6
    assert 0.2 < float((data.labels != true).float().mean()) < 0.5


@pytest.mark.parametrize("method", ["linear", "propagate", "neighbors", "wann"])
def test_an_estimate_has_the_time_of_the_fit(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.01)
    monkeypatch.setattr(fits, "ROWS", 50)
    examples: Examples = to_vectors(
        torch.randn(60, 7).numpy(), [i % 3 for i in range(60)], "abc", ids=[str(i) for i in range(60)], name="made"
    )
    least, most = estimate(settings(method), examples, 10).stages["training"]
    assert 0 < least == most
    asked: list[tuple[int, int, int]] = []

    def fit(settings: RunSettings, *sizes: int) -> float:
        asked.append(sizes)  # type: ignore[arg-type]  # three of them
        return 1000.0

    monkeypatch.setattr(measure, "fitting", fit)
    assert estimate(settings(method), examples, 10, 400).stages["training"][0] > 1000
    assert asked == [(400, 3, 7)]
    assert estimate(settings("cross_entropy"), examples, 10).stages["training"][1] < 1000


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "propagate"])
def test_an_estimate_is_true_within_a_factor_of_two(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    found = fitting(settings(method), 4000, 10, 256)
    data = fits.made(4000, 10, 256, Engine())
    spent = fits.epoch_of(settings(method).build_method(), data, Engine())
    assert spent / 2 < found < 2 * spent
