"""Eq. 4 of ScanMix's paper by epoch, on a few examples of any run: log-likelihood, ELBO and KL.

A checkpoint keeps nothing for it: the classifier that an epoch begins with is its theta_old. Legend: M examples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from scanmix.blocks.em import em_terms, in_metrics, log_probabilities
from scanmix.data.examples import Examples
from scanmix.distributed.engine import Engine
from scanmix.model import Model


def bound_monitor(model: Model, examples: Examples, size: int | None, engine: Engine) -> Callable[[], dict[str, float]]:
    """Return a function to call after each epoch: it measures how log p, ELBO and KL changed in that epoch.

    It takes M = `size` examples drawn by the seed, their center views and given labels; without a size it returns
    nothing. `model` shares the weights that are trained. q is exact: it comes from the predictor as it was before the
    epoch. The M images stay in memory, and each call predicts them once.
    """
    if size is None:
        return dict
    generator = engine.generator("monitor", 0, "examples")
    order = torch.randperm(len(examples), generator=generator, device=generator.device).cpu()
    index = order[:size].sort().values
    images, labels = examples.images[index], examples.labels[index].cpu()
    before = log_probabilities(model.logits(images))

    def measure() -> dict[str, float]:
        nonlocal before
        now = log_probabilities(model.logits(images))
        terms = em_terms(before, now, labels)
        before = now
        return in_metrics(terms)

    return measure
