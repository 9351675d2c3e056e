"""Multinomial logistic regression on features, with the L2 penalty under which held-out targets are likeliest.

Features are centered and divided by one common scale, so that rows have a mean squared norm of 1 and a penalty means
the same for all features. The loss is convex; L-BFGS (Liu and Nocedal, 1989) minimizes it on all rows at once. The
weights of the folds are fitted together, as further columns, from the strongest penalty to weaker ones, each from
where the last one ended.

Legend: N rows, D features, C classes, F fits, B rows of a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

FOLDS = 5
"""Parts of the rows; each is held out once."""
PENALTIES = (1.0, 10**-0.5, 1e-1, 10**-1.5, 1e-2, 10**-2.5, 1e-3, 10**-3.5, 1e-4, 10**-4.5, 1e-5)
"""Factors of half the squared weights that are tried beside the mean loss, falling."""
PATIENCE = 2
"""Weaker penalties that are tried although held-out targets became less likely."""
FIT_STEPS, LAST_STEPS = 30, 200
"""Most steps of L-BFGS for a penalty that is tried, and for the fit to all rows."""
REMEMBERED = 10
"""Steps that L-BFGS remembers."""
CHUNK = 8192
"""Rows whose logits are held at once: memory beyond features and targets grows with CHUNK x F x C."""


class Linear(NamedTuple):
    """A linear classifier: logits are features @ weight.T + bias."""

    weight: Tensor
    """(C, D)."""
    bias: Tensor
    """(C,)."""
    penalty: float
    """The one of `PENALTIES` that was chosen."""
    held_out: Tensor
    """(), mean log-likelihood of held-out targets under it, in nats."""


def logistic_regression(features: Tensor, targets: Tensor, generator: Generator) -> Linear:
    """Fit a linear classifier to targets, hard or soft.

    Time grows with N x D x C x `FOLDS`; memory with N x (D + C).

    Args:
        features: (N, D) finite.
        targets: (N, C), rows of probabilities.
        generator: draws the folds.

    Shape: (N, D), (N, C) -> weight (C, D), bias (C,).
    """
    count, classes = targets.shape
    mean = features.mean(0)
    scale = (features - mean).square().sum(1).mean().sqrt().clamp(min=torch.finfo(features.dtype).tiny)
    rows = (features - mean) / scale
    fold = torch.randperm(count, generator=generator, device=generator.device) % FOLDS
    learned = (fold.unsqueeze(1) != torch.arange(FOLDS, device=fold.device)).to(rows)
    found = rows.new_zeros(rows.shape[1] + 1, FOLDS, classes)
    penalty, held_out, worse = PENALTIES[0], rows.new_tensor(-torch.inf), 0
    for tried in PENALTIES:
        found = minimize(rows, targets, learned, tried, found, FIT_STEPS)
        now = _held_out(rows, targets, fold, found)
        if now > held_out:
            penalty, held_out, worse = tried, now, 0
        elif (worse := worse + 1) == PATIENCE:
            break
    start = rows.new_zeros(rows.shape[1] + 1, 1, classes)
    whole = minimize(rows, targets, rows.new_ones(count, 1), penalty, start, LAST_STEPS).squeeze(1)
    weight = whole[:-1].T / scale
    return Linear(weight.contiguous(), whole[-1] - weight @ mean, penalty, held_out)


def minimize(rows: Tensor, targets: Tensor, counted: Tensor, penalty: float, start: Tensor, steps: int) -> Tensor:
    """Return the weights with the least penalized loss, of F fits at once; the last row of weights is the bias.

    The loss of a fit is the mean cross-entropy, weighted by its column of `counted`, and half the penalty times the
    sum of squared weights, without the bias.

    Args:
        rows: (N, D).
        targets: (N, C), rows of probabilities.
        counted: (N, F) not negative, how much each row counts in each fit.
        penalty: not negative.
        start: (D + 1, F, C), weights to start from.
        steps: most steps of L-BFGS.

    Shape: (N, D), (N, C), (N, F), (D + 1, F, C) -> (D + 1, F, C).
    """
    shape = start.shape
    share = counted / counted.sum(0).clamp(min=torch.finfo(counted.dtype).tiny)
    weights = start.detach().flatten(1).clone().requires_grad_()
    weights.grad = torch.zeros_like(weights)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=steps, history_size=REMEMBERED, tolerance_grad=1e-6, tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        with torch.no_grad():
            slope, bias = weights[:-1], weights[-1]
            assert weights.grad is not None
            torch.mul(slope, penalty, out=weights.grad[:-1])
            weights.grad[-1] = 0
            total = penalty / 2 * slope.square().sum()
            for part, wanted, parts in zip(rows.split(CHUNK), targets.split(CHUNK), share.split(CHUNK), strict=True):
                log_probs = torch.addmm(bias, part, slope).view(-1, *shape[1:]).log_softmax(2)
                total -= ((log_probs * wanted.unsqueeze(1)).sum(2) * parts).sum()
                error = (log_probs.exp_() - wanted.unsqueeze(1)).mul_(parts.unsqueeze(2)).flatten(1)
                weights.grad[:-1].addmm_(part.T, error)
                weights.grad[-1] += error.sum(0)
        return total

    optimizer.step(loss)
    return weights.detach().view(shape)


def _held_out(rows: Tensor, targets: Tensor, fold: Tensor, found: Tensor) -> Tensor:
    """Return the mean log-likelihood of each target under the fit that has not seen its row.

    Shape: (N, D), (N, C), (N,), (D + 1, FOLDS, C) -> scalar.
    """
    total = rows.new_zeros(())
    for number in range(FOLDS):
        left_out = fold == number
        log_probs = torch.addmm(found[-1, number], rows[left_out], found[:-1, number]).log_softmax(1)
        total += (log_probs * targets[left_out]).sum()
    return total / len(rows)
