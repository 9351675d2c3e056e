"""The two-component mixture of all losses, beside scikit-learn called as published code calls it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from scanmix.blocks.divide import clean_probability
from scanmix.progress import Bar, progress
from speed.reference_loop import clean_probability as by_sklearn
from speed.rows import Row
from speed.timing import interleave, ready

COUNTS = {50_000: 5, 1_000_000: 2}
"""Losses -> repeats."""


def rows(bar: Bar) -> list[Row]:
    """Fit 50,000 and 1,000,000 losses."""
    found = []
    with progress("mixture", 2 * sum(COUNTS.values()), bar) as steps:
        for count, repeats in COUNTS.items():
            losses = made_losses(count)
            mine, theirs = interleave(
                {
                    "scanmix": ready(partial(clean_probability, losses)),
                    "scikit-learn": ready(partial(by_sklearn, losses)),
                },
                repeats,
                steps,
            ).values()
            difference = float((clean_probability(losses) - by_sklearn(losses)).abs().max())
            found.append(
                Row(f"mixture of {count:,} losses", mine, "scikit-learn", theirs, f"at most {difference:.1g} apart")
            )
    return found


def made_losses(count: int) -> Tensor:
    """Return losses of which half are small: a gamma beside a normal distribution. Shape: -> (count,)."""
    draws = torch.Generator().manual_seed(0)
    small = torch.rand(count, 2, generator=draws).log().neg().sum(1) * 0.2
    large = 2.5 + 0.8 * torch.randn(count, generator=draws)
    return torch.where(torch.rand(count, generator=draws) < 0.5, small, large).clamp(min=0)
