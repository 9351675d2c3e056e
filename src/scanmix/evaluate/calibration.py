"""Calibration of a classifier by held-out labels that may themselves be wrong.

Temperature scaling (Guo et al., ICML 2017) divides logits by one number T; T above 1 makes an overconfident classifier
less confident. Fitted to noisy labels alone, T would fit their noise. So labels are modeled as (1 - e) p_T + e / C, a
mixture of the tempered prediction p_T and uniform noise, and T and e are fitted together by maximum likelihood.
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
"""Fewest labels: with fewer, T came out anywhere between half and twice its value."""
TEMPERATURES = np.geomspace(0.05, 20, 121)
"""Temperatures of the grid search, each 5 % above the one before; the best of them is refined."""
MOST_REPLACED = 0.99
"""Largest e, the share of labels that uniform noise replaces."""
LIKELY = 1.92
"""A 95 % interval ends this many nats below the largest log-likelihood: half of the 95 % quantile of chi-squared."""
TINY = 1e-38
"""About the smallest normal float32; smaller probabilities have no exact logarithm and count as this."""


class Calibration(NamedTuple):
    """The result of fitting a temperature to held-out labels."""

    temperature: float
    """T."""
    low: float
    """Lower end of the 95 % interval of T, by the likelihood ratio."""
    high: float
    """Upper end of the same interval."""
    noise_rate: float
    """Share (0..1) of wrong labels, e (1 - 1 / C): of the replaced labels one in C is right by chance."""
    loss_before: float
    """Mean negative log-likelihood of the labels, in nats, at T = 1 and the best e for it."""
    loss_after: float
    """The same at the fitted T and e."""


def temper(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of logits divided by T, from probabilities alone: p^(1/T), normalized.

    The likeliest class stays the same. Shape: (N, C) -> (N, C) float64.
    """
    logs = np.log(np.maximum(probs, TINY, dtype=np.float64)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    tempered: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return tempered


def fit_temperature(probs: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit a temperature and the rate of symmetric noise to labels, by maximum likelihood.

    The images must not have been trained on. Their labels may be wrong, but about as often in each class.

    Shape: (N, C) probabilities in 0..1, (N,) class numbers.

    Raises:
        UserError: there are fewer than 100 labels, or the best temperature is an end of the range 0.05 to 20.
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
    """Return where `excess` becomes positive between `inside` and `end`; `end` if it does not."""
    from scipy.optimize import brentq

    return float(end if excess(end) <= 0 else brentq(excess, inside, end, xtol=1e-3))


def _fit_noise(probs: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[float, float]:
    """Return the least mean negative log-likelihood at one temperature, and the share e of replaced labels there."""
    of_label = temper(probs, temperature)[np.arange(len(labels)), labels]

    def loss(replaced: float) -> float:
        observed = (1 - replaced) * of_label + replaced / probs.shape[1]
        return -float(np.log(np.maximum(observed, TINY)).mean())

    fit = _minimum(loss, (0.0, MOST_REPLACED))  # convex in e, so it has one minimum
    return float(fit.fun), float(fit.x)


def _minimum(loss: Callable[[float], float], bounds: tuple[float, float]) -> OptimizeResult:
    """Return the minimum of a function of one variable within bounds."""
    from scipy.optimize import minimize_scalar  # imported here, as predicting needs no SciPy

    return minimize_scalar(loss, bounds=bounds)
