"""The evidence of an audit: what is known about each label after a training, or from arrays of another model.

Legend: N examples, C classes, D features, K neighbors, P networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scanmix.blocks.neighbors import nearest_neighbors, neighbor_similarity
from scanmix.data.duplicates import exact_groups
from scanmix.data.examples import Examples, Excluded
from scanmix.model import Outputs
from scanmix.model.dynamics import Snapshot

NEIGHBORS = 10
"""Neighbors that vote, where there are so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything an audit uses, in the order of the training data.

    Memory grows with N x C and does not depend on the size of the images.
    """

    labels: Tensor
    """(N,) int64, given."""
    probs: Tensor
    """(N, C) class probabilities, mean over the networks; half precision if they come from a run."""
    predictions: Tensor
    """(P, N) int64, the most probable class for each network."""
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    true_labels: Tensor | None = None
    """(N,) int64, only to measure an audit against; no score uses it. `OPEN_SET` for an image of no class."""
    neighbors: Tensor | None = None
    """(N, K) int64, nearest other examples by the networks' features; without them no neighbor votes."""
    similarity: Tensor | None = None
    """(N,) mean cosine similarity to the neighbors."""
    pictures: Tensor | None = None
    """(N,) int64, the first example with the same image (or vector)."""
    snapshots: Sequence[Snapshot] = ()
    set_aside: Tensor | None = None
    """(N,) bool: labels that no network learned from in the last epoch."""
    self_supervised: bool = False
    """Whether no label was learned from at all."""
    decided: Tensor | None = None
    """(N,) int8, positions in `DECIDED`: what a person decided before the training; None if there was no review."""
    excluded: tuple[Excluded, ...] = ()
    """Examples that a person left out before the training."""
    votes: Tensor | None = None
    """(N, A) int64, what each annotator said, `NO_VOTE` for nothing; None where each example has one label."""
    annotators: tuple[str, ...] = ()
    """A names."""


def collect(outputs: Outputs, examples: Examples) -> Evidence:
    """Return the evidence of a model's outputs for its own training data. Shape: outputs for N examples."""
    neighbors, similarity = neighborhood(outputs.features)
    return Evidence(
        labels=examples.labels.cpu(),
        probs=outputs.logits.softmax(2).mean(0).half(),
        predictions=outputs.logits.argmax(2),
        class_names=examples.class_names,
        ids=examples.ids,
        paths=examples.paths,
        true_labels=None if examples.true_labels is None else examples.true_labels.cpu(),
        neighbors=neighbors,
        similarity=similarity,
        pictures=same_images(examples.images.cpu()),
        decided=examples.decided,
        excluded=examples.excluded,
        votes=examples.votes,
        annotators=examples.annotators,
    )


def neighborhood(features: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return the nearest other examples and the mean cosine similarity to them; None for a single example.

    Shape: (N, D) -> (N, K) int64, (N,).
    """
    if len(features) < 2:
        return None, None
    neighbors = nearest_neighbors(features, min(NEIGHBORS, len(features) - 1))
    return neighbors, neighbor_similarity(features, neighbors)


def same_images(images: Tensor) -> Tensor:
    """Return for each image the position of the first that equals it in every pixel.

    Shape: (N, channels, H, W) -> (N,) int64.
    """
    first = torch.arange(len(images))
    for group in exact_groups(images):
        first[group] = group[0]
    return first
