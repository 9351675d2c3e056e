"""The evidence of an audit: what is known about each label after a training, or from arrays of another model.

Legend: N examples, C classes, D features, K neighbors, P networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.neighbors import nearest_neighbors, neighbor_similarity
from scanmix.data.duplicates import exact_groups
from scanmix.data.examples import Examples, Excluded
from scanmix.model import Outputs
from scanmix.model.dynamics import Snapshot

CHUNK = 4096
"""Images whose pixels are held as numbers with a point at once."""
SIDE = 12
"""Most rows and columns of pixels of which neighbors by pixels are found: class shows in the coarse picture."""
NEIGHBORS = 10
"""Neighbors that vote, where there are so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything an audit uses, in the order of the training data.

    Memory grows with N x C and does not depend on the size of the images.
    """

    labels: Tensor
    """(N,) int64, given."""
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    probs: Tensor | None = None
    """(N, C) class probabilities, mean over the networks; half precision if they come from a run; None without one."""
    predictions: Tensor | None = None
    """(P, N) int64, the most probable class for each network; None where `probs` is."""
    held_out: bool = False
    """Whether `probs` come from models that did not learn from the label they judge."""
    paths: tuple[str, ...] | None = None
    true_labels: Tensor | None = None
    """(N,) int64, only to measure an audit against; no score uses it. `OPEN_SET` for an image of no class."""
    neighbors: Tensor | None = None
    """(N, K) int64, nearest other examples by the networks' features; without them no neighbor votes."""
    similarity: Tensor | None = None
    """(N,) mean cosine similarity to the neighbors."""
    image_neighbors: Tensor | None = None
    """(N, K) int64, nearest other examples by pixels (or by the vectors that are the data): no label shaped them."""
    pictures: Tensor | None = None
    """(N,) int64, the first example with the same image (or vector)."""
    snapshots: Sequence[Snapshot] = ()
    set_aside: Tensor | None = None
    """(N,) bool: labels that no network learned from in the last epoch."""
    self_supervised: bool = False
    """Whether no label was learned from at all."""
    learned_all: bool = False
    """Whether the networks learned from every label as it was given."""
    decided: Tensor | None = None
    """(N,) int8, positions in `DECIDED`: what a person decided before the training; None if there was no review."""
    excluded: tuple[Excluded, ...] = ()
    """Examples that a person left out before the training."""


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
        image_neighbors=neighborhood(image_features(examples.images.cpu()))[0],
        pictures=same_images(examples.images.cpu()),
        decided=examples.decided,
        excluded=examples.excluded,
    )


def image_features(images: Tensor) -> Tensor:
    """Return pixels as features: each channel averaged to at most `SIDE` x `SIDE`. Vectors, of one pixel, stay.

    Shape: (N, channels, H, W) -> (N, channels x side x side) float32.
    """
    side = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
    parts = [F.adaptive_avg_pool2d(part.float(), side).flatten(1) for part in images.split(CHUNK)]
    return torch.cat(parts)


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
