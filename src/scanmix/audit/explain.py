"""Which evidence the noise model of an audit is fitted to."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scanmix.audit.decided import labels_before
from scanmix.audit.evidence import Evidence
from scanmix.blocks.label_quality import RateInterval, mean_likelihood, truth_posterior, with_history
from scanmix.blocks.noise_model import NoiseModel, fit, fit_neighbors
from scanmix.config import percent

LEAST = 1e-6
"""Probabilities below this are raised to it, so that their logarithm is a number."""
MORE = 0.03
"""By so much more often than neighbors say given labels do networks predict them that have memorized some."""
ALMOST_ALL = 0.97
"""Share of given labels that networks predict which have memorized them, so that even their neighbors say them."""


def explain(evidence: Evidence) -> NoiseModel:
    """Fit the noise model to what an audit knows of its labels.

    Neighbors come first, since the label of an example can be left out of what they say. So it can in a regression on
    principal components of features that no label shaped. Probabilities are added where no network learned from the
    label that it judges. Features of networks that have memorized their labels do not count: wrong labels have drawn
    them to wrong neighbors. Neighbors by the pictures take their place, and the history of the training, in which
    memorized labels were learned late, is a second source.

    Shape: evidence of N examples -> posterior (N, C), p_clean (N,).
    """
    labels, classes = evidence.labels, len(evidence.class_names)
    held_out = evidence.held_out or evidence.self_supervised
    logits = None if evidence.probs is None else evidence.probs.float().clamp(min=LEAST).log()
    if evidence.neighbors is None:
        logits = torch.zeros(len(labels), classes) if logits is None else logits
        marginal = logits.softmax(1).mean(0) if evidence.class_prior is None else evidence.class_prior
        model = fit(logits, labels, marginal, trusted=_trusted(evidence), before=labels_before(evidence))
        return model if held_out else _with_history(model, evidence)
    model = _by_neighbors(evidence.neighbors, evidence, evidence.components, logits if held_out else None)
    if held_out or not memorized(evidence, model):
        return model
    if evidence.image_neighbors is not None:
        model = _by_neighbors(evidence.image_neighbors, evidence, None, None)
    return _with_history(model, evidence)


def memorized(evidence: Evidence, model: NoiseModel) -> bool:
    """Return whether the networks predict given labels more often than what is seen without the label allows.

    Where they predict nearly all, neighbors do so too, be the labels right or memorized. Then it counts whether the
    method learns from every label.
    """
    if evidence.predictions is None:
        return False
    predicted = float((evidence.predictions == evidence.labels).float().mean())
    said = float((model.v.argmax(1) == evidence.labels).float().mean())
    return predicted > said + MORE or (evidence.learned_all and predicted > ALMOST_ALL)


def _by_neighbors(
    neighbors: Tensor, evidence: Evidence, components: Tensor | None, logits: Tensor | None
) -> NoiseModel:
    """Fit the noise model to neighbors and other sources. Shape: (N, K), (N, P), (N, C) -> posterior (N, C)."""
    return fit_neighbors(
        neighbors,
        evidence.labels,
        len(evidence.class_names),
        Generator().manual_seed(0),
        marginal=evidence.class_prior,
        trusted=_trusted(evidence),
        components=components,
        logits=logits,
        before=labels_before(evidence),
    )


def _trusted(evidence: Evidence) -> Tensor | None:
    """Return which labels a person has decided; None without a review. Shape: -> (N,) bool."""
    return None if evidence.decided is None else evidence.decided > 0


def _with_history(model: NoiseModel, evidence: Evidence) -> NoiseModel:
    """Return the model with the training dynamics as second source, where there are any; its interval stays."""
    if not evidence.snapshots:
        return model
    labels, trusted = evidence.labels, _trusted(evidence)
    losses = torch.stack([snapshot.losses for snapshot in evidence.snapshots])
    p_clean = with_history(model.p_clean, mean_likelihood(losses))
    doubt = 1 - p_clean if trusted is None else (1 - p_clean).masked_fill(trusted, 0.0)
    value = float(doubt.mean())
    rate = RateInterval(value, min(model.rate.low, value), max(model.rate.high, value))
    return model._replace(p_clean=p_clean, posterior=truth_posterior(p_clean, model.posterior, labels), rate=rate)


def readings(model: NoiseModel) -> tuple[str, ...]:
    """Return, in sentences, what the interval of the noise rate allows for."""
    if model.agreement is None:
        return (
            "Nothing tells how far the probabilities are right: the high end takes every label that they contradict "
            "for wrong, the low end takes as many contradictions as possible for errors of the model.",
        )
    low, high = sorted((model.soft_rate, model.stable_rate))
    return (
        f"Two halves of the labels agree on the class of {percent(model.agreement)} of the examples. If contradictions "
        f"between a label and its neighbors come from classes that look alike, {percent(low)} of the labels are wrong; "
        f"if they come from labels, {percent(high)}. Labels alone cannot tell these apart.",
    )
