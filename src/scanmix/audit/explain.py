"""Which evidence the noise model of an audit is fitted to."""

from __future__ import annotations

import torch
from torch import Generator

from scanmix.audit.evidence import Evidence
from scanmix.blocks.noise_model import NoiseModel, fit, fit_neighbors
from scanmix.config import percent

LEAST = 1e-6
"""Probabilities below this are raised to it, so that their logarithm is a number."""


def explain(evidence: Evidence) -> NoiseModel:
    """Fit the noise model to what an audit knows of its labels.

    Neighbors come first, since the label of an example can be left out of what they say. Probabilities count only
    where no network learned from the label that it judges; of others nobody can tell what is memory. Where there is
    neither, the noise model is that of labels without evidence: it allows everything.

    Shape: evidence of N examples -> posterior (N, C), p_clean (N,).
    """
    labels, classes = evidence.labels, len(evidence.class_names)
    trusted = None if evidence.decided is None else evidence.decided > 0
    logits = None
    if evidence.probs is not None and (evidence.held_out or evidence.self_supervised or evidence.neighbors is None):
        logits = evidence.probs.float().clamp(min=LEAST).log()
    if evidence.neighbors is None:
        if logits is None:
            logits = torch.zeros(len(labels), classes)
        return fit(logits, labels, logits.softmax(1).mean(0), trusted=trusted)
    generator = Generator().manual_seed(0)
    return fit_neighbors(evidence.neighbors, labels, classes, generator, trusted=trusted, logits=logits)


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
