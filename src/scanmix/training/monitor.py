"""Eq. 4 of ScanMix's paper by epoch, on a few examples of any run: what EM would say of its training.

Nothing is kept for it: the classifier that a run goes on from is the theta_old of its next epoch. Legend: M examples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from scanmix.blocks.em import em_terms, in_metrics, log_probabilities
from scanmix.data.examples import Examples
from scanmix.distributed.engine import Engine
from scanmix.model import Model


def bound_monitor(model: Model, examples: Examples, size: int | None, engine: Engine) -> Callable[[], dict[str, float]]:
    """Return what measures, after each epoch from now on, how log p, ELBO and KL have moved in it.

    It looks at M = `size` examples drawn by the seed, in plain view and with their given labels; at none where there is
    no size. The weights of `model` are those that are trained. q is exact, by the predictor as it was before the epoch.
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
