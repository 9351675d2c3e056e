"""The evidence of an audit: what is known about each label after a training, or from arrays of another model.

Legend: N examples, C classes, D features, K neighbors, P networks.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from scanmix.blocks.neighbors import nearest_neighbors, neighbor_similarity
from scanmix.blocks.pictures import image_features
from scanmix.blocks.ridge import principal_components
from scanmix.config import UserError
from scanmix.data.duplicates import exact_groups
from scanmix.data.examples import Examples, Excluded
from scanmix.model import Outputs
from scanmix.model.dynamics import Snapshot
from scanmix.progress import StageTick, Tick, of_stage

NEIGHBORS = 10
"""Neighbors that vote, where there are so many."""
NAMED = 5
"""Number of classes that a warning lists."""
WITHIN = 0.01
"""How far the sum of shares that a user gives may be from 1."""


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
    components: Tensor | None = None
    """(N, P), principal components of features that no label shaped, for a linear classifier; None without such."""
    image_neighbors: Tensor | None = None
    """(N, K) int64, nearest other examples by `image_features`: no label shaped them."""
    pictures: Tensor | None = None
    """(N,) int64, the first example with the same image (or vector)."""
    class_prior: Tensor | None = None
    """(C,) with sum 1, share of each true class where the user knows it; else the likeliest is taken."""
    snapshots: Sequence[Snapshot] = ()
    set_aside: Tensor | None = None
    """(N,) bool: labels that no network learned from in the last epoch."""
    self_supervised: bool = False
    """Whether no label was learned from at all."""
    learned_all: bool = False
    """Whether the networks learned from every label as it was given."""
    decided: Tensor | None = None
    """(N,) int8, positions in `DECIDED`: what a person decided before the training; None if there was no review."""
    before: Tensor | None = None
    """(N,) int64, the label before a person's first decision, `NOT_KNOWN` where that is not known; None if of none."""
    excluded: tuple[Excluded, ...] = ()
    """Examples that a person left out before the training."""
    votes: Tensor | None = None
    """(N, A) int64, what each annotator said, `NO_VOTE` for nothing; None where each example has one label."""
    annotators: tuple[str, ...] = ()
    """A names."""


def collect(
    outputs: Outputs, examples: Examples, features: np.ndarray | None = None, tick: StageTick | None = None
) -> Evidence:
    """Return the evidence of a model's outputs for its own training data.

    Neighbors are those of `features`, of a pretrained encoder, where there are any: no label has shaped them. Without
    them they are those of the networks' features, and there are neighbors by the pictures (`image_features`) besides.
    `tick` is called as in `evidence_from_examples`. Shape: outputs for N examples, features (N, D).
    """
    found = outputs.features if features is None else torch.from_numpy(features.astype(np.float32))
    neighbors, similarity = neighborhood(found, of_stage("neighbors", tick))
    by_pictures = None
    if features is None:
        rows = image_features(examples.images.cpu(), of_stage("features of pictures", tick))
        by_pictures = neighborhood(rows, of_stage("neighbors by pictures", tick))[0]
    return dataclasses.replace(
        evidence_of(examples),
        probs=outputs.logits.softmax(2).mean(0).half(),
        predictions=outputs.logits.argmax(2),
        neighbors=neighbors,
        similarity=similarity,
        components=None if features is None else components_of(found),
        image_neighbors=by_pictures,
    )


def evidence_of(examples: Examples) -> Evidence:
    """Return what the examples say of themselves: labels, names, duplicates, votes, and what a person decided."""
    return Evidence(
        labels=examples.labels.cpu(),
        class_names=examples.class_names,
        ids=examples.ids,
        paths=examples.paths,
        true_labels=None if examples.true_labels is None else examples.true_labels.cpu(),
        pictures=same_images(examples.images.cpu()),
        decided=examples.decided,
        before=examples.before,
        excluded=examples.excluded,
        votes=examples.votes,
        annotators=examples.annotators,
    )


def neighborhood(features: Tensor, tick: Tick | None = None) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return the nearest other examples and the mean cosine similarity to them; None for a single example.

    `tick` as of `nearest_neighbors`. Shape: (N, D) -> (N, K) int64, (N,).
    """
    if len(features) < 2:
        return None, None
    neighbors = nearest_neighbors(features, min(NEIGHBORS, len(features) - 1), tick=tick)
    return neighbors, neighbor_similarity(features, neighbors)


def components_of(features: Tensor) -> Tensor:
    """Return the principal components that the noise model's linear classifier sees. Shape: (N, D) -> (N, P)."""
    return principal_components(features, Generator().manual_seed(0))


def checked_prior(shares: Mapping[str, float], class_names: Sequence[str]) -> Tensor:
    """Return shares of the true classes in the order of the names. Shape: -> (C,) with sum 1.

    Raises:
        UserError: a class is unknown or missing, or the shares are no shares of one whole.
    """
    unknown, missing = [*shares.keys() - set(class_names)], [name for name in class_names if name not in shares]
    if unknown or missing:
        what = f"{unknown[0]!r} is no class" if unknown else f"the class {missing[0]!r} has no share"
        raise UserError(f"class prior: {what}; name each of {', '.join(class_names[:NAMED])} once with its share")
    found = torch.tensor([float(shares[name]) for name in class_names], dtype=torch.float64)
    if not bool((found >= 0).all()) or not abs(float(found.sum()) - 1) <= WITHIN:
        raise UserError(
            "class prior: shares must be at least 0 and have the sum 1; "
            f"the smallest is {float(found.min()):g} and the sum {float(found.sum()):g}"
        )
    return (found / found.sum()).float()


def same_images(images: Tensor) -> Tensor:
    """Return for each image the position of the first that equals it in every pixel.

    Shape: (N, channels, H, W) -> (N,) int64.
    """
    first = torch.arange(len(images))
    for group in exact_groups(images):
        first[group] = group[0]
    return first


def check_comparable(labels: Tensor, class_names: Sequence[str]) -> None:
    """Refuse labels of which none can be compared with another; warn of classes that have none.

    Where there are probabilities, they tell something even then. Shape: (N,) int64 in 0..C-1, C names.

    Raises:
        UserError: there are fewer than two examples, or all labels are the same.
    """
    count, sizes = len(labels), labels.bincount(minlength=len(class_names)).tolist()
    if count < 2:
        raise UserError(f"an audit compares labels with each other, and there {'is one' if count else 'are none'} here")
    empty = [name for name, size in zip(class_names, sizes, strict=True) if not size]
    if len(class_names) - len(empty) == 1:
        same = class_names[int(labels[0])]
        raise UserError(f"an audit needs labels of at least two classes, and all {count} labels here are {same!r}")
    if empty:
        listed = ", ".join(map(repr, empty[:NAMED])) + (", ..." if len(empty) > NAMED else "")
        warnings.warn(
            f"{len(empty)} of {len(class_names)} classes have no label ({listed}), so none of them is suggested",
            stacklevel=3,
        )
