"""Gradient ascent with a backtracking line search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SUFFICIENT = 1e-4
"""A step must raise the objective by at least this share of what the gradient predicts (Armijo's rule)."""


class Step(NamedTuple):
    """What one call of `ascend` did."""

    value: Tensor
    """The objective before the step, a scalar without gradient."""
    rate: float
    """Weights moved by `rate` times the gradient; 0 where no step was good enough."""


def ascend(weights: Sequence[Tensor], objective: Callable[[], Tensor], rate: float, halvings: int) -> Step:
    """Move the weights up the gradient of a scalar objective, in place.

    A step that gains less than SUFFICIENT of what the gradient predicts is halved, at most `halvings` times. If no
    step gains enough, or the objective is NaN after each, the weights stay as they were. With `halvings` = 0 the step
    is taken without a check. Each check computes the objective once more and costs a device synchronization.
    Shape: weights of any shape, objective () -> () and a number.
    """
    value = objective()
    gradients = torch.autograd.grad(value, weights)
    required = SUFFICIENT * sum(gradient.square().sum().item() for gradient in gradients)  # gain for a rate of 1
    value, start = value.detach(), [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for _ in range(halvings + 1):
            for weight, old, gradient in zip(weights, start, gradients, strict=True):
                weight.copy_(old + rate * gradient)
            if halvings == 0 or objective() >= value + rate * required:
                return Step(value, rate)
            rate /= 2
        for weight, old in zip(weights, start, strict=True):
            weight.copy_(old)
    return Step(value, 0.0)
