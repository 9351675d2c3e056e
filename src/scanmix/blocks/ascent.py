"""Gradient ascent that looks before it steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SUFFICIENT = 1e-4
"""Share of the rise that the gradient promises which a step must bring (Armijo's rule)."""


class Step(NamedTuple):
    """What a step started from, and how long it was: weights moved by `rate` times the gradient."""

    value: Tensor
    rate: float


def ascend(weights: Sequence[Tensor], objective: Callable[[], Tensor], rate: float, halvings: int) -> Step:
    """Move the weights up the gradient of the objective, in place.

    A step that does not bring SUFFICIENT of what the gradient promises is halved, at most so many times; if none of
    them does, nothing moves. With no halvings the step is taken as it is, up or down.
    """
    value = objective()
    gradients = torch.autograd.grad(value, weights)
    promised = SUFFICIENT * sum(gradient.square().sum().item() for gradient in gradients)
    value, start = value.detach(), [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for _ in range(halvings + 1):
            for weight, old, gradient in zip(weights, start, gradients, strict=True):
                weight.copy_(old + rate * gradient)
            if halvings == 0 or objective() >= value + rate * promised:
                return Step(value, rate)
            rate /= 2
        for weight, old in zip(weights, start, strict=True):
            weight.copy_(old)
    return Step(value, 0.0)
