"""The likelihood of given labels under a transition matrix, and the matrices that make them likeliest.

P(y_i | x_i) = sum_c v_i(c) T[c, y_i], where v_i(c) is the probability of class c without the label of image i, and
T[c, k] = P(given label k | true class c). With symmetric noise of rate e it depends on the self-confidence alone,
s_i = v_i(y_i): P(y_i | x_i) = s_i (1 - e) + (1 - s_i) e / (C - 1).

Legend: N examples, C classes, H temperatures, E rates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scanmix.blocks.transition import expected_confusion, transition_matrix

CHUNK = 65536
"""Rows whose joint probabilities are held at once."""
STEPS = 40
"""Rates of symmetric noise that are tried, besides 0."""


def likelihoods(v: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """Return P(y_i | x_i) = sum_c v_i(c) T[c, y_i]. Shape: (N, C), (C, C), (N,) int64 -> (N,) in 0..1."""
    columns = transition.T.contiguous()
    parts = zip(v.split(CHUNK), labels.split(CHUNK), strict=True)
    return torch.cat([(rows * columns[given]).sum(1) for rows, given in parts])


def log_likelihood(v: Tensor, transition: Tensor, labels: Tensor) -> float:
    """Return the sum of log P(y_i | x_i) in nats; a label that cannot be counts as the smallest number that is not 0.

    A device synchronization. Shape: (N, C), (C, C), (N,) int64 -> scalar.
    """
    return float(_log_sum(likelihoods(v, transition, labels)))


def _log_sum(probabilities: Tensor) -> Tensor:
    """Return the sum of logarithms, in double precision. Shape: (N,) -> scalar."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log().sum(dtype=torch.float64)


def posterior(v: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """Return r_i(c) ~ v_i(c) T[c, y_i], the probability of each true class given what is seen and the label.

    Where the model allows no class for a label, the label tells nothing and r = v.
    Shape: (N, C), (C, C), (N,) int64 -> (N, C), rows sum to 1.
    """
    found, columns = torch.empty_like(v), transition.T.contiguous()
    for rows, given, out in zip(v.split(CHUNK), labels.split(CHUNK), found.split(CHUNK), strict=True):
        torch.mul(rows, columns[given], out=out)
        total = out.sum(1, keepdim=True)
        possible = total > torch.finfo(v.dtype).tiny
        out.copy_(torch.where(possible, out / torch.where(possible, total, 1.0), rows))
    return found


def symmetric(rate: Tensor, num_classes: int) -> Tensor:
    """Return T of symmetric noise: 1 - `rate` on the diagonal and the rest even; with one class it is 1.

    Shape: scalar in 0..1 -> (C, C), rows sum to 1.
    """
    off = (rate / max(num_classes - 1, 1)).repeat(num_classes, num_classes).fill_diagonal_(0)
    return off + torch.diag_embed(1 - off.sum(1))


def highest_rate(num_classes: int) -> float:
    """Return (C - 1) / C, the rate of symmetric noise at which labels tell nothing."""
    return (num_classes - 1) / num_classes


def symmetric_rate(
    confidence: Tensor, num_classes: int, rounds: int = 60, known: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    """Return the likeliest rate of symmetric noise by EM; the log-likelihood is concave in it.

    `known` are numbers of labels, besides the N, that are known to be right and to be wrong. The rate is at least
    1 / (N + 2), the rule of succession, and at most `highest_rate`.
    Shape: (N,) in 0..1, see the module -> scalar. `rounds` is at least 1.
    """
    highest = highest_rate(num_classes)
    rate, others = confidence.new_tensor(highest / 2), max(num_classes - 1, 1)
    count = len(confidence) + sum(known)
    for _ in range(rounds):
        right, wrong = confidence * (1 - rate), (1 - confidence) * (rate / others)
        share = right / (right + wrong).clamp(min=torch.finfo(confidence.dtype).tiny)
        rate = 1 - (share.sum() + known[0]) / count
        rate = rate.clamp(min=1 / (count + 2)).clamp(max=highest)
    return rate


def symmetric_profile(confidence: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return rates of symmetric noise and the log-likelihood of each, in nats, for each temperature of v.

    Rates rise from 0 to `highest_rate`, closer to each other near 0.
    Shape: (H, N) in 0..1, see the module -> (E,), (H, E) float64.
    """
    rates = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64, device=confidence.device) ** 1.5 * highest_rate(
        num_classes
    )
    others = max(num_classes - 1, 1)
    rows = [
        torch.stack([_log_sum(part * (1 - rate) + (1 - part) * (rate / others)) for rate in rates.to(confidence)])
        for part in confidence
    ]
    return rates, torch.stack(rows)


def symmetric_posterior(v: Tensor, labels: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    """Return the posterior of the true class under symmetric noise, averaged over rates with the given weights.

    Memory grows with N x C; time with N x (C + E).
    Shape: (N, C), (N,) int64, (E,), (E,) -> (N, C), rows sum to the sum of the weights.
    """
    classes = v.shape[1]
    confidence = v.gather(1, labels.unsqueeze(1)).squeeze(1)
    right, others = torch.zeros_like(confidence), torch.zeros_like(confidence)
    for rate, weight in zip(rates.to(v), weights.to(v), strict=True):
        off = rate / max(classes - 1, 1)
        total = (confidence * (1 - rate) + (1 - confidence) * off).clamp(min=torch.finfo(v.dtype).tiny)
        right += weight * confidence * (1 - rate) / total
        others += weight * off / total
    return (v * others.unsqueeze(1)).scatter(1, labels.unsqueeze(1), right.unsqueeze(1))


def transition_of_counts(counts: Tensor, shrinkage: float) -> Tensor:
    """Return the rows of `counts` as shares, mixed with the symmetric matrix that has the same mean diagonal.

    A class without counts gets its row from the symmetric matrix. That matrix never says that labels cannot be wrong:
    its diagonal is at most 1 - 1 / (total + 2), the rule of succession.
    Shape: (C, C) not negative, true class x given label -> (C, C), rows sum to 1. `shrinkage` is in 0..1.
    """
    rows = counts.sum(1)
    seen = (rows > 0).to(counts)
    shares = transition_matrix(counts)
    diagonal = (shares.diagonal() * seen).sum() / seen.sum().clamp(min=1)
    even = symmetric(1 - diagonal.minimum(1 - 1 / (rows.sum() + 2)), len(counts))
    return torch.where(seen.unsqueeze(1) > 0, torch.lerp(shares, even, shrinkage), even)


def shrinkage_for(count: int, num_classes: int) -> float:
    """Return s = 1 / (1 + N / (20 C^2)), in 0..1: with few images for each entry of T, symmetry is trusted more."""
    return 1 / (1 + count / (20 * num_classes**2))


def transition_by_em(v: Tensor, labels: Tensor, start: Tensor, rounds: int = 40, known: Tensor | None = None) -> Tensor:
    """Return the T that makes the given labels likeliest, by EM from `start`, which counts as half an image a class.

    The log-likelihood is concave in T for a given v. Where v is soft between the classes that people confuse, T has
    too few mistakes; where v itself is mistaken, too many. `known` are counts of true class x given label of further
    images, which count in full. Memory beyond the inputs grows with `CHUNK` x C.
    Shape: (N, C), (N,) int64, (C, C), (C, C) -> (C, C), rows sum to 1. `rounds` is at least 0.
    """
    transition = start
    for _ in range(rounds):
        counts = 0.5 * start.double() + (0.0 if known is None else known)
        for rows, given in zip(v.split(CHUNK), labels.split(CHUNK), strict=True):
            counts += expected_confusion(posterior(rows, transition, given), given)
        transition = transition_matrix(counts).to(v.dtype)
    return transition


def asymmetry(gain: float, num_classes: int) -> float:
    """Return how far to go from symmetric to general T, 0..1: the positive part of 1 - k / (2 gain).

    k = C (C - 1) - 1 is the number of parameters that general T has more, `gain` the log-likelihood in nats that it
    gains. With symmetric noise 2 gain is about k, so that little is left (positive-part rule of James and Stein 1961).
    """
    more = max(num_classes * (num_classes - 1) - 1, 0)
    return max(0.0, 1 - more / (2 * gain)) if gain > 0 else 0.0
