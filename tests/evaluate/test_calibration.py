"""Temperatures found again in labels drawn from known probabilities, with known noise."""

import math

import numpy as np
import pytest

from scanmix.config import UserError
from scanmix.evaluate.calibration import _fit_noise, fit_temperature, temper


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def draw(count: int, temperature: float, replaced: float, seed: int, classes: int = 10) -> tuple[np.ndarray, ...]:
    """Probabilities that are too sure by `temperature`, and labels of which a share was drawn anew."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(count, classes))
    labels = (softmax(logits).cumsum(1) > rng.random((count, 1))).argmax(1)
    labels = np.where(rng.random(count) < replaced, rng.integers(0, classes, count), labels)
    return softmax(temperature * logits).astype(np.float32), labels


@pytest.mark.parametrize("replaced", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_and_noise_are_found_again(temperature: float, replaced: float) -> None:
    found = fit_temperature(*draw(8000, temperature, replaced, seed=3))
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.noise_rate == pytest.approx(0.9 * replaced, abs=0.02)
    assert found.low < found.temperature < found.high < 1.3 * found.low
    assert found.loss_after <= found.loss_before


def test_wrong_labels_taken_as_right_would_make_a_sure_classifier_doubt() -> None:
    """What the noise model is for: without it the temperature is twice too high."""
    probs, labels = draw(8000, 1.0, 0.4, seed=0)
    rows = np.arange(len(labels))
    blind = min(np.geomspace(0.2, 10, 60), key=lambda t: -np.log(temper(probs, t)[rows, labels]).mean())
    assert blind > 2
    assert fit_temperature(probs, labels).temperature == pytest.approx(1.0, rel=0.1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    fits = [fit_temperature(*draw(300, 2.0, 0.2, seed)) for seed in range(40)]
    assert sum(fit.low <= 2.0 <= fit.high for fit in fits) >= 34


def test_the_best_point_of_a_fine_grid_is_no_better() -> None:
    probs, labels = draw(400, 3.0, 0.3, seed=1)
    found = fit_temperature(probs, labels)
    of_label = [temper(probs, t)[np.arange(400), labels] for t in np.linspace(1, 6, 60)]
    grid = min(-np.log((1 - e) * p + e / 10).mean() for p in of_label for e in np.linspace(0, 0.9, 60))
    assert found.loss_after <= grid + 1e-9
    assert grid == pytest.approx(found.loss_after, abs=1e-3)
    assert found.loss_before == pytest.approx(_fit_noise(probs, labels, 1.0)[0])


def test_tempering_divides_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 5
    for temperature in (0.3, 1.0, 4.0):
        found = temper(softmax(logits), temperature)
        assert found == pytest.approx(softmax(logits / temperature))
        assert (found.argmax(1) == logits.argmax(1)).all()


def test_a_probability_of_zero_stays_a_number() -> None:
    sure = np.array([[1, 0, 0]], np.float32)
    assert temper(sure, 0.1).tolist() == [[1, 0, 0]]
    assert np.isfinite(temper(sure, 20)).all()


def test_labels_that_say_nothing_are_refused() -> None:
    probs, labels = draw(99, 1.0, 0.0, seed=0)
    with pytest.raises(UserError, match="at least 100 held-out labels, not 99"):
        fit_temperature(probs, labels)
    probs = softmax(np.random.default_rng(0).normal(size=(500, 3)))
    with pytest.raises(UserError, match="right about all"):
        fit_temperature(probs, probs.argmax(1))


def test_two_classes_and_a_saturated_classifier() -> None:
    probs, labels = draw(3000, 4.0, 0.3, seed=2, classes=2)
    found = fit_temperature(probs, labels)
    assert found.low < 4.0 < found.high
    assert not math.isnan(found.loss_after)
