"""How sure a classifier may be, learned from held-out labels that may themselves be wrong.

Temperature scaling (Guo et al., ICML 2017) divides logits by one number T: above 1 tames a classifier that is too
sure. Fitted to wrong labels it would learn their noise, so the labels are taken to be p_T mixed with noise that
draws from all C classes alike, (1 - e) p_T + e / C, and T and e are found together by maximum likelihood.
Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scanmix.config import UserError

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

FEWEST = 100
"""Labels needed: with fewer, T comes out anywhere between half and twice its value."""
TEMPERATURES = np.geomspace(0.05, 20, 121)
"""Tried before the best of them is refined; each is 5 % above the one before."""
MOST_REPLACED = 0.99
LIKELY = 1.92
"""Nats below the best log-likelihood at which a 95 % interval ends: half of chi-squared with one degree of freedom."""
TINY = 1e-38
"""About the smallest normal float32: probabilities below it have lost their logarithm."""


class Calibration(NamedTuple):
    """What held-out labels say of a classifier."""

    temperature: float
    low: float
    """With `high`, the ends of the 95 % interval of the temperature, by the likelihood ratio."""
    high: float
    noise_rate: float
    """Share of the labels that are wrong: of those drawn anew, one in C is right by chance."""
    loss_before: float
    """Mean negative log-likelihood of the labels in nats, at T = 1 and the rate of noise that suits it best."""
    loss_after: float


def temper(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Divide logits by `temperature`, from probabilities alone: p^(1/T), normalized. Shape: (N, C) -> (N, C) float64.

    Which class is likeliest does not change.
    """
    logs = np.log(np.maximum(probs, TINY, dtype=np.float64)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    tempered: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return tempered


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> Calibration:
    """Find temperature and symmetric noise that make the labels likeliest.

    The images must not have been trained on; their labels may be wrong, but not more often for one class.

    Shape: (N, C) probabilities in 0..1, (N,) class numbers.

    Raises:
        UserError: there are fewer than 100 labels, or no temperature between 0.05 and 20 fits better than the ends.
    """
    if len(labels) < FEWEST:
        raise UserError(f"a temperature needs at least {FEWEST} held-out labels, not {len(labels)}")

    def loss(temperature: float) -> float:
        return _fit_noise(probs, labels, temperature)[0]

    best = int(np.argmin([loss(temperature) for temperature in TEMPERATURES]))
    if best in (0, len(TEMPERATURES) - 1):
        raise UserError("the held-out labels fix no temperature: the classifier is right about all, or about none")
    around = (TEMPERATURES[best - 1], TEMPERATURES[best + 1])
    temperature = float(_minimum(loss, around).x)
    least, replaced = _fit_noise(probs, labels, temperature)
    limit = least + LIKELY / len(labels)
    return Calibration(
        temperature=temperature,
        low=_crossing(lambda t: loss(t) - limit, temperature, TEMPERATURES[0]),
        high=_crossing(lambda t: loss(t) - limit, temperature, TEMPERATURES[-1]),
        noise_rate=replaced * (1 - 1 / probs.shape[1]),
        loss_before=loss(1.0),
        loss_after=least,
    )


def _crossing(excess: Callable[[float], float], inside: float, end: float) -> float:
    """Where `excess` turns positive between `inside` and `end`; `end` if it does not."""
    from scipy.optimize import brentq

    return float(end if excess(end) <= 0 else brentq(excess, inside, end, xtol=1e-3))


def _fit_noise(probs: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[float, float]:
    """At one temperature, return the least mean negative log-likelihood and the share of labels drawn anew."""
    of_label = temper(probs, temperature)[np.arange(len(labels)), labels]

    def loss(replaced: float) -> float:
        observed = (1 - replaced) * of_label + replaced / probs.shape[1]
        return -float(np.log(np.maximum(observed, TINY)).mean())

    fit = _minimum(loss, (0.0, MOST_REPLACED))  # convex: one valley
    return float(fit.fun), float(fit.x)


def _minimum(loss: Callable[[float], float], bounds: tuple[float, float]) -> OptimizeResult:
    from scipy.optimize import minimize_scalar  # here: whoever only predicts needs no SciPy

    return minimize_scalar(loss, bounds=bounds)
