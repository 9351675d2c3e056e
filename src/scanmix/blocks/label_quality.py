"""Label quality: the operations of the audit, which estimate how likely each given label is right.

Legend: N examples, C classes, K neighbors, P networks, T snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MARGIN = 0.2
"""An example is hard if the probability of its given label exceeds every other by less than this."""
LEAST_LABELS = 2.0
"""Expected right, and wrong, labels below which nothing is learned from their history."""
LEAST_VARIANCE = 0.01
"""Of log-odds of labels over a training, so that a few equal ones are no certainty."""
EVEN = 0.5
"""A class with a lower probability than this, or a label with a lower p_clean, is not trusted."""

ISSUE_TYPES = {
    "duplicate": "The same image (or vector) also stands under another label.",
    "out_of_scope": "No class is likelier than a half by what is seen, and even its neighbors are unlike it.",
    "wrong": "`p_clean` is below a half, and another class is likelier.",
    "hard": "The label has no clear lead: its margin is below a fifth, or `p_clean` is below a half.",
    "fine": "None of these.",
}
"""Names of the issue types in the order of their rules, and what each means; the last is for what fits no rule."""
DUPLICATE, OUT_OF_SCOPE, WRONG, HARD, FINE = ISSUE_TYPES
SAMPLING = 1.645
"""Standard errors of a share on either side, for 90 %."""


class RateInterval(NamedTuple):
    """A share of wrong labels (0..1) and the interval it probably lies in."""

    value: float
    low: float
    high: float


def interval_from(value: float, ends: Sequence[float], count: int, highest: float = 1.0) -> RateInterval:
    """Return a share of `count` labels with an interval from the lowest to the highest of `value` and `ends`.

    It is widened by the sampling error of the share, and lies in 0..`highest`.
    """
    error = SAMPLING * (value * (1 - value) / max(count, 1)) ** 0.5
    return RateInterval(value, max(min(*ends, value) - error, 0.0), min(max(*ends, value) + error, highest))


def self_confidence(probs: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of the given label, its self-confidence (Northcutt et al. 2021).

    Shape: (N, C), (N,) -> (N,).
    """
    return probs.gather(1, labels.unsqueeze(1)).squeeze(1)


def mean_likelihood(losses: Tensor) -> Tensor:
    """Return the geometric mean over snapshots and networks of the probability of the given label.

    Wrong labels are learned late, if at all (Arpit et al. 2017), so the whole training tells more than its end, when
    a network may have memorized every label. Shape: (T, P, N) cross-entropy in nats -> (N,) in 0..1.
    """
    return (-losses.float().mean((0, 1))).exp()


def with_history(p_clean: Tensor, likelihood: Tensor, rounds: int = 20) -> Tensor:
    """Return p_clean after the history of the training is heard as second source of evidence, by Bayes' rule.

    The log-odds of `mean_likelihood` are normal among right and among wrong labels. Means and variances are found by
    EM, in which the prior of each label stays `p_clean`. Where wrong labels were not learned later than right ones, or
    hardly any label is in doubt, history says nothing.
    Shape: (N,) in 0..1, (N,) in 0..1 -> (N,) in 0..1. `rounds` is at least 0.
    """
    tiny = torch.finfo(torch.float32).eps
    heard, prior = torch.logit(likelihood.double(), eps=tiny), torch.logit(p_clean.double(), eps=tiny)
    found = p_clean.double()
    for _ in range(rounds):
        weights = torch.stack([found, 1 - found])
        total = weights.sum(1, keepdim=True)
        mean = (weights * heard).sum(1, keepdim=True) / total
        if bool((total < LEAST_LABELS).any()) or bool(mean[0] <= mean[1]):
            return p_clean
        variance = ((weights * (heard - mean).square()).sum(1, keepdim=True) / total).clamp(min=LEAST_VARIANCE)
        right, wrong = -((heard - mean).square() / variance + variance.log()) / 2
        found = torch.sigmoid(prior + right - wrong)
    return found.to(p_clean)


def forgetting_events(right: Tensor) -> Tensor:
    """Count forgetting events: the label is predicted at one snapshot and not at the next (Toneva et al. 2019).

    `right` is true where a network predicts the given label; counts are summed over networks.
    Shape: (T, P, N) bool -> (N,) int64.
    """
    return (right[:-1] & ~right[1:]).sum((0, 1))


def margin(probs: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of the given label minus the best other. Shape: (N, C), (N,) -> (N,) in -1..1."""
    others = probs.scatter(1, labels.unsqueeze(1), -1.0)
    return self_confidence(probs, labels) - others.amax(1)


def truth_posterior(p_clean: Tensor, probs: Tensor, labels: Tensor) -> Tensor:
    """Return the probability that each class is the true one: p_clean for the given label, the rest for the others.

    The others share 1 - p_clean in proportion to `probs`, or evenly where all of theirs are 0.
    Shape: (N,), (N, C), (N,) -> (N, C), rows sum to 1.
    """
    others = probs.scatter(1, labels.unsqueeze(1), 0.0)
    even = torch.ones_like(probs).scatter(1, labels.unsqueeze(1), 0.0)
    total = others.sum(1, keepdim=True)
    others = torch.where(total > 0, others, even)
    others = others / others.sum(1, keepdim=True).clamp(min=torch.finfo(others.dtype).tiny)
    return ((1 - p_clean).unsqueeze(1) * others).scatter(1, labels.unsqueeze(1), p_clean.unsqueeze(1))


def is_outlier(similarity: Tensor) -> Tensor:
    """Return which examples are unlike even their neighbors: mean similarity below Tukey's lower fence.

    Shape: (N,) -> (N,) bool.
    """
    low, high = torch.quantile(similarity, torch.tensor([0.25, 0.75], dtype=similarity.dtype))
    fence: Tensor = low - 1.5 * (high - low)
    return similarity < fence


def issue_types(
    p_clean: Tensor, probs: Tensor, seen: Tensor, labels: Tensor, duplicate: Tensor, outlier: Tensor
) -> list[str]:
    """Return for each label the first of `ISSUE_TYPES` whose rule fits.

    Args:
        p_clean: probability that the given label is right.
        probs: (N, C), probability of each true class, the given label included; rows sum to 1.
        seen: (N, C), probability of each class by the image alone; rows sum to 1.
        labels: given labels.
        duplicate: where the same image also stands under another label.
        outlier: where an example is unlike even its neighbors, see `is_outlier`.

    Shape: (N,), (N, C), (N, C), (N,), (N,) bool, (N,) bool -> N names.
    """
    rules = {
        DUPLICATE: duplicate,
        OUT_OF_SCOPE: (seen.amax(1) < EVEN) & outlier,
        WRONG: (p_clean < EVEN) & (probs.argmax(1) != labels),
        HARD: (margin(probs, labels) < MARGIN) | (p_clean < EVEN),
    }
    names = [FINE] * len(labels)
    for name, mask in reversed(rules.items()):
        for i in mask.nonzero().squeeze(1).tolist():
            names[i] = name
    return names
