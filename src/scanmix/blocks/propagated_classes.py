"""Classes that label propagation finds in features, and a linear head that starts from them.

SCAN's clusters (Van Gansbeke et al. 2020) do not know of labels: where two classes lie close together it may merge them
and split another, and its loss does not tell. Here given labels, however many are wrong, spread over the graph of
neighbors until each image has a class. A cluster cannot be merged that way, since each class keeps its share of the
images. It is the noise model in rounds (`blocks.noise_model`), with a fixed temperature and number of rounds.

Legend: N examples, C classes, K neighbors, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.label_likelihood import posterior
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, sinkhorn
from scanmix.blocks.transition import expected_confusion, transition_matrix
from scanmix.blocks.trust import keep_given

NEIGHBORS = 10
"""K. On the digits 7 to 10 are alike, 5 fails more often at 90 % noise."""
TEMPERATURE = 1.5
"""Factor of the propagated scores; 1.2 to 2 give the same on the digits."""
ROUNDS = 20
"""Rounds of propagation. One is enough at 50 % symmetric noise; at 90 % classes still settle in the twelfth."""
SCALE = 7.0
"""Logits between a class that is fitted with 1 and one fitted with 0. With 20 the head is so sure of its mistakes at
90 % noise that their losses no longer tell them apart; 3 to 7 are alike."""


class Head(NamedTuple):
    """A linear classifier."""

    weight: Tensor
    """(C, D)."""
    bias: Tensor
    """(C,)."""


def propagated_classes(
    neighbors: Tensor, labels: Tensor, num_classes: int, generator: Generator, rounds: int = ROUNDS,
    trusted: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the probability of each class, from the neighbors and the given label.

    Each round propagates what the one before found (at first the given labels), balances it to the shares of the given
    labels (v), reads T[c, k] = P(given label k | class c) from v alone, and takes r_i(c) ~ v_i(c) T[c, y_i]. A label
    does not count for its own T: EM, which counts it, soon believes all labels where v is soft. T has too much noise
    then, which costs little here.
    Rounds are not ended by their likelihood: at 90 % noise it falls while the classes become right.
    Memory grows with N x (K + C). Shape: -> (N, C), rows sum to 1.

    Args:
        neighbors: of each example. Shape: (N, K) int64.
        labels: given labels. Shape: (N,) int64 in 0..C-1.
        num_classes: C.
        generator: of the draws that find an example's own share of its score.
        rounds: at least 0.
        trusted: labels that are known to be right. They are believed in every round and tell nothing of T, which is
            that of the other labels. Shape: (N,) bool.
    """
    graph = neighbor_graph(neighbors)
    own = own_share(graph, generator)
    found = given = F.one_hot(labels, num_classes).float()
    doubted = slice(None) if trusted is None else ~trusted
    marginal = found.mean(0)
    for _ in range(rounds):
        v = sinkhorn(TEMPERATURE * neighbor_scores(graph, found, own), marginal)
        transition = transition_matrix(expected_confusion(v[doubted], labels[doubted])).to(v)
        found = keep_given(posterior(v, transition, labels), given, trusted)
    return found


def least_squares_head(features: Tensor, class_probs: Tensor, scale: float = SCALE) -> Head:
    """Return the linear head whose outputs are closest to `scale` times the probabilities, in the mean of squares.

    Of equally good heads it is the one of least norm. Copies the features to float64, so memory grows with N x D; the
    rest is D x D. Shape: (N, D), (N, C) -> (C, D), (C,) of the dtype of `features`.
    """
    x, y = features.double(), class_probs.double()
    center, mean = x.mean(0), y.mean(0)
    x = x - center
    weight = ((y - mean).T @ x) @ torch.linalg.pinv(x.T @ x, hermitian=True)
    return Head((scale * weight).to(features), (scale * (mean - weight @ center)).to(features))
