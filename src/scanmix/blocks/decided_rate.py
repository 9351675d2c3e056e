"""The share of wrong labels where a person has decided some: what a model says, corrected by what was found.

A model says with which chance p_i each label is wrong; of some labels a person has found whether it was. The labels
are sorted into strata by p. In each, the mean of p over all labels is corrected by the mean of (was wrong - p) over
the decided ones: the difference estimator of survey sampling (Cochran 1977; prediction-powered inference, Angelopoulos
et al., Science 2023), with post-stratification. It needs no calibrated model. Decisions made the most doubtful first
do no harm, as long as those of a stratum are like its other labels.

Legend: N labels, S strata.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scanmix.blocks.label_quality import SAMPLING, RateInterval

STRATA = 5
"""Strata, with as many labels each."""
LEAST = 5
"""Decisions in a stratum below which it keeps what the model says of it."""
NARROW = 0.03
"""Half of the width of an interval that is narrow enough: 3 points."""
LEAST_VARIANCE = 0.01
"""Of being wrong, where decisions are shared out, so that labels of which a model is sure are asked for, too."""


class DecidedRate(NamedTuple):
    """Shares of wrong labels, each with a 90 % interval."""

    now: RateInterval
    """Of all labels, with decided ones counted as right."""
    before: RateInterval
    """Of the labels as they were before any decision."""
    more: int
    """Decisions drawn at random among the other labels after which the interval is expected to be `NARROW`."""


class _Strata(NamedTuple):
    """Sums by stratum. Shape: each (S,)."""

    labels: Tensor
    """Labels, decided or not."""
    decided: Tensor
    """Decided ones among them."""
    open: Tensor
    """The others."""
    p_wrong: Tensor
    """Expected number of wrong labels among the open ones, by the model."""
    chance: Tensor
    """The same by the chances that are comparable with those of decided labels."""
    residual: Tensor
    """Mean of (was wrong - chance) over decided labels; 0 without."""
    squares: Tensor
    """Sum of squares of (was wrong - chance) around its mean."""


def strata_of(chance: Tensor) -> Tensor:
    """Return the stratum of each label: `STRATA` intervals of `chance` with as many labels each; equal values together.

    Shape: (N,) in 0..1 -> (N,) int64 in 0..S-1.
    """
    if not len(chance):
        return torch.zeros(0, dtype=torch.int64)
    ranks = torch.arange(1, STRATA) * len(chance) // STRATA
    return torch.bucketize(chance, chance.sort().values[ranks], right=True)


def rate_with_decisions(
    chance: Tensor, p_wrong: Tensor, asked: Tensor, wrong: Tensor, known: Tensor, model: RateInterval
) -> DecidedRate:
    """Return the share of wrong labels, estimated from a model and a person's decisions.

    A stratum with fewer than `LEAST` decisions keeps the value of the model and its share of the model's interval,
    whose errors go together; errors of sampling in the other strata are independent of them and of each other.

    Args:
        chance: (N,) in 0..1, chance that the label was wrong before any decision; the decision has no part in it.
        p_wrong: (N,) in 0..1, chance that an open label is wrong by all that the model knows; may be `chance`.
        asked: (N,) bool, labels that were decided, and of which is known whether they had been wrong.
        wrong: (N,) bool, which of those were.
        known: (N,) bool, all labels that count as right now, `asked` included.
        model: what the model says of labels that are not `known`.
    """
    part = asked | ~known
    strata = _sums(chance[part].double(), p_wrong[part].double(), asked[part], wrong[part].double())
    used = (strata.decided >= LEAST) & (strata.open > 0)
    size, openings = len(chance), strata.open.sum()
    corrected = torch.minimum((strata.chance + strata.open * strata.residual).clamp(min=0), strata.open)
    found = torch.where(used, corrected, strata.p_wrong)
    value = float(found.sum())
    left = strata.open.masked_fill(used, 0.0)
    below, above = _model_errors(strata.p_wrong[~used].sum(), left.sum(), model)
    error = _sampling_error(strata, used)
    low, high = value - math.hypot(below, error), value + math.hypot(above, error)
    changed, most = float((wrong & asked).sum()), float(openings)
    value, low, high = (min(max(each, 0.0), most) for each in (value, low, high))
    now = RateInterval(*(each / max(size, 1) for each in (value, low, high)))
    total = max(int(part.sum()), 1)
    before = RateInterval(*((each + changed) / total for each in (value, low, high)))
    return DecidedRate(now, before, _decisions_needed(strata, used, now, size))


def at_rate(p_wrong: Tensor, rate: float) -> Tensor:
    """Return chances with another mean, in the same order: all nearer to 0, or all nearer to 1, by the same factor.

    Shape: (N,) in 0..1 -> (N,) in 0..1. `rate` is in 0..1.
    """
    mean = p_wrong.mean() if len(p_wrong) else torch.tensor(0.0)
    if rate <= mean:
        return p_wrong * (rate / mean) if mean > 0 else p_wrong
    return 1 - (1 - p_wrong) * ((1 - rate) / (1 - mean))


def informative_order(chance: Tensor, draws: Tensor) -> Tensor:
    """Return the order of decisions that narrows the interval of the rate fastest.

    Each stratum gets decisions in proportion to N_s sqrt(mean p (1 - p)), the allocation of Neyman (1934), and its
    k-th comes at the time (k - 1/2) / weight, so that each beginning of the order is shared out in this way.
    Shape: chance (N,) in 0..1, draws (N,), which order the labels of a stratum -> (N,) positions.
    """
    stratum, time = strata_of(chance), torch.empty(len(chance), dtype=torch.float64)
    for s in range(STRATA):
        members = (stratum == s).nonzero().squeeze(1)
        if not len(members):
            continue
        p = chance[members].double()
        weight = len(members) * ((p * (1 - p)).mean() + LEAST_VARIANCE).sqrt()
        place = draws[members].argsort(stable=True).argsort(stable=True)
        time[members] = (place.double() + 0.5) / weight
    return time.argsort(stable=True)


def _sums(chance: Tensor, p_wrong: Tensor, asked: Tensor, wrong: Tensor) -> _Strata:
    """Return sums by stratum. Shape: (N,) each -> (S,) each."""
    stratum = strata_of(chance)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(STRATA, dtype=torch.float64).index_add_(0, stratum, values.double())

    decided = total(asked)
    residual = (wrong - chance) * asked
    mean = total(residual) / decided.clamp(min=1)
    squares = total(((residual - mean[stratum]) * asked).square())
    openings = ~asked
    return _Strata(
        decided + total(openings), decided, total(openings), total(p_wrong * openings), total(chance * openings), mean,
        squares,
    )  # fmt: skip


def _variance(squares: Tensor, count: Tensor) -> Tensor:
    """Return the variance of residuals, with z^2 more of the variance 1/4: a few equal answers prove little.

    As in Agresti and Coull (1998), with z of `SAMPLING`. Shape: (S,), (S,) -> (S,).
    """
    return (squares + SAMPLING**2 / 4) / ((count - 1).clamp(min=0) + SAMPLING**2)


def _sampling_error(strata: _Strata, used: Tensor) -> float:
    """Return half of the width, in labels, of the interval of what was sampled; all labels of a stratum err not."""
    spread = _variance(strata.squares, strata.decided) / strata.decided.clamp(min=1)
    variance = strata.labels.square() * spread * (strata.open / strata.labels.clamp(min=1))
    return SAMPLING * math.sqrt(variance[used].sum())


def _model_errors(p_wrong: Tensor, count: Tensor, model: RateInterval) -> tuple[float, float]:
    """Return how far the model's interval reaches below and above, in labels, of `count` with `p_wrong` expected wrong.

    Chances are moved as `at_rate` moves them, so that all labels together get the interval of the model.
    """
    down = 1 - model.low / model.value if model.value > 0 else 0.0
    up = 1 - (1 - model.high) / (1 - model.value) if model.value < 1 else 0.0
    return float(p_wrong) * down, float(count - p_wrong) * up


def _decisions_needed(strata: _Strata, used: Tensor, now: RateInterval, size: int) -> int:
    """Return how many more random decisions narrow the interval to `NARROW`; 0 if it is.

    Where there are no decisions yet, the strata are not trusted, and it is n = r (1 - r) (z / 0.03)^2 for the rate r
    of open labels, corrected for their finite number and for `_variance`.
    """
    openings = float(strata.open.sum())
    if now.high - now.low <= 2 * NARROW or openings == 0:
        return 0
    if bool(used.any()):
        rate = (strata.p_wrong / strata.open.clamp(min=1)).clamp(0, 1)
        spread = torch.where(used, strata.squares / (strata.decided - 1).clamp(min=1), rate * (1 - rate))
        labels, decided, share = strata.labels, strata.decided, strata.open / openings
    else:
        rate = torch.tensor([now.value * size / openings], dtype=torch.float64)
        spread, labels = rate * (1 - rate), torch.tensor([openings], dtype=torch.float64)
        decided, share = torch.zeros_like(labels), torch.ones_like(labels)
    least, most = 0, int(openings)
    while least < most:
        middle = (least + most) // 2
        count = torch.minimum(decided + middle * share, labels).clamp(min=torch.finfo(torch.float64).tiny)
        variance = _variance((count - 1).clamp(min=0) * spread, count) / count * labels * (labels - count).clamp(min=0)
        if SAMPLING * math.sqrt(variance.sum()) <= NARROW * size:
            most = middle
        else:
            least = middle + 1
    return least
