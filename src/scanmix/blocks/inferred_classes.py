"""Classes that given labels and features tell together, where no label has shaped the features.

Labels are propagated over neighbors and balanced to the likeliest shares of the classes, and what they say then is
propagated again. Such rounds settle classes where most labels are wrong; where neighbors often have other classes, they
repeat their mistakes. Labels that are hidden tell which: how often what the others say after the last round is the
hidden label, and how often after the first. Where rounds do not help, the noise model of the audit
(`blocks.noise_model`) takes their place. It is softer, knows two readings, and has a linear classifier as second
source.

Legend: N examples, C classes, K neighbors, P components.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.class_shares import TEMPERATURE, likeliest_shares
from scanmix.blocks.label_likelihood import log_likelihood, posterior, symmetric, symmetric_rate
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.noise_model import fit_neighbors
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, sinkhorn
from scanmix.blocks.transition import expected_confusion, transition_matrix
from scanmix.blocks.trust import keep_given

ROUNDS = 12
"""Rounds of propagation; they settle in five to ten."""
STARTS, ENOUGH, ALIKE = 10, 2, 0.98
"""Most starts of the rounds, and how many others must settle on this share of the likeliest classes to end early."""
FOLDS = 5
"""Parts of the labels; each is hidden once."""


class Inferred(NamedTuple):
    """What is inferred of the true classes of N examples."""

    posterior: Tensor
    """(N, C), probability of each true class; 1 for a label that is known to be right."""
    in_rounds: bool
    """Whether it comes from rounds of propagation, not from the noise model of the audit."""


class _Links(NamedTuple):
    """What labels flow over, and the shares of the classes to which they are balanced."""

    graph: Tensor
    """(N, N) sparse CSR."""
    diagonal: Tensor
    """(N,), see `propagation.own_share`."""
    shares: Tensor
    """(C,) with sum 1."""


def infer_classes(
    neighbors: Tensor, components: Tensor, labels: Tensor, num_classes: int, generator: Generator,
    trusted: Tensor | None = None, margin: float = -2.0,
) -> Inferred:  # fmt: skip
    """Infer the true class of each example from the labels of all.

    Memory grows with N x (K + P + C).

    Args:
        neighbors: (N, K) int64, see `neighbors.nearest_neighbors`.
        components: (N, P), see `ridge.principal_components`.
        labels: (N,) int64 in 0..C-1, given labels.
        num_classes: C.
        generator: draws the folds, the halves of the noise model, and probes for the share of an example's own label.
        trusted: (N,) bool, labels that are known to be right. They are believed in every round and never hidden, and T
            is that of the other labels.
        margin: how many standard errors the rounds must be ahead in hidden labels, to be believed. A negative one
            believes them unless they are as far behind: where features are of a pretrained network, rounds are seldom
            wrong. With a positive one they must show that they help, which suits features that tell less.

    Shape: (N, K), (N, P), (N,) -> posterior (N, C).
    """
    graph = neighbor_graph(neighbors)
    diagonal = own_share(graph, generator)
    given = F.one_hot(labels, num_classes).float()
    shares = likeliest_shares(neighbor_scores(graph, given, diagonal), labels, trusted)
    links = _Links(graph, diagonal, shares)
    if _lead_of_rounds(links, labels, generator, trusted) < margin:
        model = fit_neighbors(
            neighbors, labels, num_classes, generator, marginal=shares, trusted=trusted, components=components,
            linked=(graph, diagonal),
        )  # fmt: skip
        return Inferred(keep_given(model.posterior, given, trusted), in_rounds=False)
    return Inferred(_settled(links, labels, generator, trusted), in_rounds=True)


def _settled(links: _Links, labels: Tensor, generator: Generator, trusted: Tensor | None) -> Tensor:
    """Return the posterior after the last round, of the start under which the labels are likeliest.

    With much noise, rounds may settle where classes are exchanged. Further starts propagate a random half of the labels
    first. Their likelihood is that of symmetric T, which tells exchanged classes from right ones. It ends early where
    starts settle alike. Shape: (N,), (N,) bool -> (N, C).
    """
    everything = torch.ones_like(labels, dtype=torch.bool)
    judged, classes = everything if trusted is None else ~trusted, len(links.shares)
    best, likeliest, alike = everything.new_zeros(0), -torch.inf, 0
    for number in range(STARTS):
        half = torch.rand(len(labels), generator=generator, device=generator.device) < 0.5
        first = half if number else everything
        *_, (v, found) = _in_rounds(links, labels, first, ~everything, trusted)
        v, given = v[judged], labels[judged]
        even = symmetric(symmetric_rate(self_confidence(v, given), classes), classes)
        likelihood = log_likelihood(v, even, given)
        if number and float((found.argmax(1) == best.argmax(1)).float().mean()) > ALIKE:
            alike += 1
        elif likelihood > likeliest:
            alike = 0
        if likelihood > likeliest:
            best, likeliest = found, likelihood
        if alike == ENOUGH:
            break
    return best


def _lead_of_rounds(links: _Links, labels: Tensor, generator: Generator, trusted: Tensor | None) -> float:
    """Return by how many standard errors the last round says hidden labels more often than the first.

    Shape: (N,), (N,) bool.
    """
    fold = torch.randperm(len(labels), generator=generator, device=generator.device) % FOLDS
    if trusted is not None:
        fold = fold.masked_fill(trusted, FOLDS)
    lost = won = 0
    for number in range(FOLDS):
        hidden = fold == number
        first, *_, last = (v.argmax(1) == labels for v, _ in _in_rounds(links, labels, ~hidden, hidden, trusted))
        lost += int((hidden & first & ~last).sum())
        won += int((hidden & last & ~first).sum())
    return (won - lost) / math.sqrt(max(1, lost + won))


def _in_rounds(
    links: _Links, labels: Tensor, first: Tensor, hidden: Tensor, trusted: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield v and the posterior after each of `ROUNDS` rounds, as in `propagated_classes`; hidden labels have no part.

    The posterior of an example whose label is hidden is v. In the first round, labels outside of `first` are not
    propagated. Shape: (N,), (N,) bool, (N,) bool -> (N, C), (N, C) each.
    """
    found = given = F.one_hot(labels, len(links.shares)).float()
    shown = ~hidden if trusted is None else ~hidden & ~trusted
    used: Tensor | None = first
    for _ in range(ROUNDS):
        v = sinkhorn(TEMPERATURE * neighbor_scores(links.graph, found, links.diagonal, used), links.shares)
        transition = transition_matrix(expected_confusion(v[shown], labels[shown])).to(v)
        found = keep_given(posterior(v, transition, labels), given, trusted)
        found, used = torch.where(hidden.unsqueeze(1), v, found), None
        yield v, found
