"""The transition matrix of each annotator, from expected counts of votes, drawn toward that of all together.

An annotator differs from the pooled matrix T in two ways, each as far as the votes of all annotators ask for:

- ability b, one number: the log-odds of a right vote are logit(T[c, c]) + b for all classes, b ~ N(0, scale^2);
- habits, row by row: the share of right votes of class c is drawn from a Beta and the split of its mistakes from a
  Dirichlet distribution, both around the above and worth `strength` votes.

Scale and strength are those with the largest evidence, the probability of the votes with all else integrated out
(empirical Bayes; Minka 2000 for the Dirichlet-multinomial). Scale 0 and an infinite strength are the pooled matrix
for everybody: right where the columns of a table are not persons.

Legend: A annotators, C classes, G abilities on a grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

INFINITE = float("inf")
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, INFINITE)
"""Strengths that are tried, in votes for each true class."""
SCALES = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Scales of ability that are tried, in log-odds."""
MOST, STEP = 6.0, 0.05
"""The grid of abilities goes from -`MOST` to `MOST` in steps of `STEP`."""


class Difference(NamedTuple):
    """How much annotators differ."""

    scale: float = 0.0
    """Standard deviation of their abilities, in log-odds; 0 if all are equally able."""
    strength: float = INFINITE
    """Votes for each true class that the common habits are worth; infinite if there are no others."""

    @property
    def none(self) -> bool:
        """Whether one matrix stands for all annotators."""
        return self == Difference()


class Matrices(NamedTuple):
    """What `fit_matrices` finds."""

    transitions: Tensor
    """(A, C, C), rows sum to 1."""
    diagonal_variance: Tensor
    """(A, C), variance of the share of right votes of each class that is independent of the other classes."""
    abilities: Tensor
    """(A, G), probability of each ability on the grid."""
    diagonals: Tensor
    """(A, G, C), mean share of right votes of each class at each ability."""
    difference: Difference


def fit_matrices(counts: Tensor, pooled: Tensor, difference: Difference) -> Matrices:
    """Return the matrix of each annotator, the mean over what the counts leave open.

    Memory grows with A x C x (C + G). Shape: counts (A, C, C), pooled (C, C) -> (A, C, C).
    """
    grid = ability_grid(difference.scale).to(counts)
    centers = diagonals_at(grid, pooled)
    of_grid = _grid_evidence(counts, centers, difference.strength) + log_ability_prior(grid, difference.scale)
    abilities = of_grid.softmax(1)
    rows, right = counts.sum(2), counts.diagonal(dim1=1, dim2=2)
    wrong = counts * (1 - torch.eye(len(pooled)).to(counts))
    splits = mistakes_of(pooled).expand_as(counts)
    if difference.strength == INFINITE:
        diagonals = centers.expand(len(counts), -1, -1)
        variance = torch.zeros_like(diagonals)
    else:
        weight = (rows + difference.strength).unsqueeze(1)
        diagonals = (right.unsqueeze(1) + difference.strength * centers) / weight
        variance = diagonals * (1 - diagonals) / (weight + 1)
        splits = (wrong + difference.strength * splits) / ((rows - right) + difference.strength).unsqueeze(2)
    mean = (abilities.unsqueeze(2) * diagonals).sum(1)
    transitions = (1 - mean).unsqueeze(2) * splits + torch.diag_embed(mean)
    return Matrices(transitions, (abilities.unsqueeze(2) * variance).sum(1), abilities, diagonals, difference)


def likeliest_difference(counts: Tensor, pooled: Tensor) -> Difference:
    """Return the difference with the largest evidence, of equal ones the least.

    Half the logarithm of the number of votes is taken off for a scale above 0, and again for a finite strength
    (Schwarz 1978). Costs 35 times A x G x C log-gamma functions. A device synchronization.
    Shape: (A, C, C), (C, C) -> two numbers.
    """
    tried = [Difference(scale, strength) for strength in STRENGTHS[::-1] for scale in SCALES]
    numbers = counts.new_tensor([(each.scale > 0) + (each.strength < INFINITE) for each in tried])
    values = torch.stack([log_evidence(counts, pooled, each) for each in tried])
    values = values - 0.5 * counts.sum().clamp(min=2).log() * numbers
    return tried[int(values.argmax())]


def log_evidence(counts: Tensor, pooled: Tensor, difference: Difference) -> Tensor:
    """Return the log-probability of the votes with all matrices integrated out. Shape: (A, C, C), (C, C) -> ()."""
    scale, strength = difference
    grid = ability_grid(scale).to(counts)
    of_grid = _grid_evidence(counts, diagonals_at(grid, pooled), strength) + log_ability_prior(grid, scale)
    return _habit_evidence(counts, pooled, strength) + of_grid.logsumexp(1).sum()


def price(counts: Tensor, pooled: Tensor, matrices: Matrices) -> Tensor:
    """Return what the matrices cost: how far fitting them to the votes overstates how likely the votes are.

    The log-probability of the counts with these matrices less `log_evidence`; 0 for the pooled matrix.
    Shape: (A, C, C), (C, C) -> () in nats.
    """
    fitted = torch.xlogy(counts, matrices.transitions.where(counts > 0, 1.0)).sum()
    return fitted - log_evidence(counts, pooled, matrices.difference)


def ability_grid(scale: float) -> Tensor:
    """Return the abilities that are looked at. Shape: -> (G,) float64, G = 1 where all are equally able."""
    steps = round(MOST / STEP) if scale else 0
    return STEP * torch.arange(-steps, steps + 1, dtype=torch.float64)


def log_ability_prior(grid: Tensor, scale: float) -> Tensor:
    """Return the log-probability of each ability on the grid. Shape: (G,) -> (G,)."""
    return (-0.5 * (grid / scale).square()).log_softmax(0) if scale else torch.zeros_like(grid)


def diagonals_at(grid: Tensor, pooled: Tensor) -> Tensor:
    """Return the share of right votes of each class at each ability. Shape: (G,), (C, C) -> (G, C)."""
    return (pooled.diagonal().logit() + grid.unsqueeze(1)).sigmoid()


def mistakes_of(transition: Tensor) -> Tensor:
    """Return how the mistakes of each class are split over the others, evenly where there are none; 0 on the diagonal.

    Shape: (C, C) -> (C, C), rows sum to 1, or to 0 with one class.
    """
    off = 1 - torch.eye(len(transition)).to(transition)
    wrong = transition * off
    total = wrong.sum(1, keepdim=True)
    return torch.where(total > 0, wrong / torch.where(total > 0, total, 1.0), off / max(len(transition) - 1, 1))


def _grid_evidence(counts: Tensor, centers: Tensor, strength: float) -> Tensor:
    """Return the log-probability of which votes were right at each ability: beta-binomial, of votes in their order.

    Shape: (A, C, C), (G, C) in 0..1 -> (A, G).
    """
    right = counts.diagonal(dim1=1, dim2=2).unsqueeze(1)
    wrong = (counts.sum(2) - counts.diagonal(dim1=1, dim2=2)).clamp(min=0).unsqueeze(1)
    if strength == INFINITE:
        return (torch.xlogy(right, centers) + torch.xlogy(wrong, 1 - centers)).sum(2)
    tiny = torch.finfo(centers.dtype).tiny
    first, second = (strength * centers).clamp(min=tiny), (strength * (1 - centers)).clamp(min=tiny)
    each = _rising(first, right) + _rising(second, wrong) - _rising(first.new_tensor(strength), right + wrong)
    return each.sum(2)


def _habit_evidence(counts: Tensor, pooled: Tensor, strength: float) -> Tensor:
    """Return the log-probability of which wrong class was said: Dirichlet-multinomial, of votes in their order.

    Shape: (A, C, C), (C, C) -> ().
    """
    off = ~torch.eye(len(pooled), dtype=torch.bool, device=counts.device)
    wrong, splits = counts * off, mistakes_of(pooled)
    if strength == INFINITE:
        return torch.xlogy(wrong, splits.where(off, 1.0)).sum()
    alpha = (strength * splits).clamp(min=torch.finfo(splits.dtype).tiny).where(off, 1.0)
    return _rising(alpha, wrong).sum() - _rising(alpha.new_tensor(strength), wrong.sum(2)).sum()


def _rising(start: Tensor, steps: Tensor) -> Tensor:
    """Return log(start (start + 1) ... (start + steps - 1)), for steps that need not be whole. Shape: any."""
    return (start + steps).lgamma() - start.lgamma()
