"""What is known of each label when a training is over, or from arrays that somebody brings.

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
"""How many neighbors vote, where there are so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All that is known of N labels, in the order of the training data: O(N x C), whatever the images were."""

    labels: Tensor
    """(N,) int64, given."""
    probs: Tensor
    """(N, C) class probabilities, mean over the networks; of a run in half precision."""
    predictions: Tensor
    """(P, N) int64, the likeliest class to each network."""
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    true_labels: Tensor | None = None
    """(N,) int64, to measure against; nothing is weighed by it. `FOREIGN` for an image of no class."""
    neighbors: Tensor | None = None
    """(N, K) int64, the nearest others by the networks' features; without them nobody is asked."""
    similarity: Tensor | None = None
    """(N,) mean cosine to them."""
    pictures: Tensor | None = None
    """(N,) int64, the first example with the same picture."""
    snapshots: Sequence[Snapshot] = ()
    set_aside: Tensor | None = None
    """(N,) bool: labels from which nothing was learned in the last epoch."""
    self_supervised: bool = False
    """No label was learned from at all."""
    decided: Tensor | None = None
    """(N,) int8, places in `DECIDED`: what a person decided before the training; None where nobody was asked."""
    excluded: tuple[Excluded, ...] = ()
    """What a person left out before the training."""


def collect(seen: Outputs, examples: Examples) -> Evidence:
    """Make evidence of what a model sees in its training data."""
    neighbors, similarity = neighborhood(seen.features)
    return Evidence(
        labels=examples.labels.cpu(),
        probs=seen.logits.softmax(2).mean(0).half(),
        predictions=seen.logits.argmax(2),
        class_names=examples.class_names,
        ids=examples.ids,
        paths=examples.paths,
        true_labels=None if examples.true_labels is None else examples.true_labels.cpu(),
        neighbors=neighbors,
        similarity=similarity,
        pictures=same_pictures(examples.images.cpu()),
        decided=examples.decided,
        excluded=examples.excluded,
    )


def neighborhood(features: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return the nearest others and how alike they are; None for a single example.

    Shape: (N, D) -> (N, K) int64, (N,) mean cosine.
    """
    if len(features) < 2:
        return None, None
    neighbors = nearest_neighbors(features, min(NEIGHBORS, len(features) - 1))
    return neighbors, neighbor_similarity(features, neighbors)


def same_pictures(images: Tensor) -> Tensor:
    """Return for each image the position of the first that is equal in every pixel. Shape: -> (N,) int64."""
    first = torch.arange(len(images))
    for group in exact_groups(images):
        first[group] = group[0]
    return first
