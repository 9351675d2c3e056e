"""Several annotators: the true class of each image and the quality of each annotator, from who said what.

Dawid and Skene (1979): annotator a calls an image of class c k with probability T_a[c, k], whatever the others say.
Classes and matrices are found together by EM. Two things are added. The class of an image before any vote may be v,
what its neighbors say (`propagation`), in place of one share for all images. And each matrix is drawn toward that of
all annotators together, as strongly as the votes ask for (`ability`): an annotator with few votes is taken for an
ordinary one, and where the columns of a table are not persons there is one matrix.

Legend: N images, A annotators, C classes, V votes, K neighbors, B votes of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from scanmix.blocks.ability import Difference, Matrices, fit_matrices, likeliest_difference, price
from scanmix.blocks.label_likelihood import shrinkage_for, symmetric, transition_of_counts
from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, sinkhorn
from scanmix.data.examples import NO_VOTE

CHUNK = 65536
"""Votes whose likelihoods are held at once."""
ROUNDS = 30
"""Rounds of EM with one matrix for all annotators, then with one for each, at first pushed apart."""
LOOK_AGAIN = 10
"""Rounds after which it is found anew how much annotators differ."""
APART = Difference(scale=1.0)
"""How much annotators are taken to differ in the rounds that push them apart."""
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Temperatures of the propagated scores that are tried; with 0 neighbors say nothing."""
DECIMALS = 9
"""Probabilities that agree to so many decimals count as equal, so that rounding errors break no tie."""


class VoteList(NamedTuple):
    """The votes one after the other, by image and then by annotator."""

    images: Tensor
    """(V,) int64 in 0..N-1."""
    annotators: Tensor
    """(V,) int64 in 0..A-1."""
    labels: Tensor
    """(V,) int64 in 0..C-1."""


class Annotators(NamedTuple):
    """What `fit_annotators` finds."""

    posterior: Tensor
    """(N, C) float64, probability of each true class; v or the class shares where an image has no vote."""
    transitions: Tensor
    """(A, C, C) float64, T[a, c, k] = P(annotator a says k | true class c)."""
    pooled: Tensor
    """(C, C) float64, the matrix of all annotators together."""
    difference: Difference
    """How much the annotators differ."""
    quality: Tensor
    """(A,) float64, expected share of right votes of each annotator on images of all classes as they occur, 0..1."""
    quality_error: Tensor
    """(A,) float64, standard error of `quality`. The true classes are taken as known to the posterior."""
    counts: Tensor
    """(A,) int64, votes of each annotator."""
    consensus: Tensor
    """(N,) int64, the likeliest class; of equally likely ones the first."""
    consensus_prob: Tensor
    """(N,) float64, its probability."""
    agreement: Tensor
    """(N,) float64, share of the votes of an image that are for the consensus, 0..1; NaN without a vote."""
    log_likelihood: float
    """Mean over images of the log-probability of their votes, in nats."""
    temperature: float | None = None
    """The temperature of v, where neighbors were asked."""


def list_votes(votes: Tensor) -> VoteList:
    """Return the votes that were cast. Shape: (N, A) int64, `NO_VOTE` for none -> three times (V,) int64."""
    images, annotators = (votes != NO_VOTE).nonzero(as_tuple=True)
    return VoteList(images, annotators, votes[images, annotators])


def vote_counts(votes: Tensor, num_classes: int) -> Tensor:
    """Return how many votes each class has. Shape: (N, A) int64 -> (N, C) int64."""
    cast = list_votes(votes)
    cells = cast.images * num_classes + cast.labels
    return cells.bincount(minlength=len(votes) * num_classes).view(len(votes), num_classes)


def majority(votes: Tensor, num_classes: int) -> Tensor:
    """Return the class with the most votes, of several the first; class 0 for an image without votes.

    Shape: (N, A) int64 -> (N,) int64.
    """
    return _first_best(vote_counts(votes, num_classes).double())


def several_votes(votes: Tensor) -> bool:
    """Return whether any image has two votes or more; else votes cannot tell right from wrong. Shape: (N, A) int64."""
    return bool(((votes != NO_VOTE).sum(1) > 1).any())


def fit_annotators(votes: Tensor, num_classes: int, prior: Tensor | None = None, rounds: int = ROUNDS) -> Annotators:
    """Find true classes and the matrix of each annotator by EM.

    It begins with one symmetric matrix for all annotators, halfway between chance and certainty, so that classes keep
    their names; the pooled matrix is drawn a little toward a symmetric one, as in the noise model. From there each
    annotator gets a matrix of their own, at first by `APART`, then as far as the votes ask for (`ability`). Without
    that push, one good annotator among few would go unseen, since the others outvote them. Their own matrices are kept
    if the votes are likelier with them by more than these matrices cost (`ability.price`).

    Votes on one image are taken as independent given its class. They are not where the image itself is unclear, so
    probabilities near 1 are too sure. Without a prior and with at most one vote an image nothing can be found: the
    matrices stay those of the start, and the consensus is the vote.

    Args:
        votes: (N, A) int64 in 0..C-1, `NO_VOTE` where an annotator did not vote.
        num_classes: C.
        prior: (N, C), rows sum to 1: probability of each class before the votes, such as v of the noise model, from
            neighbors with the label of the image itself left out. Without it the shares of the classes are found.
        rounds: of EM in each of the three parts, at least 1.

    Memory grows with N x C + A x C x C. Shape: (N, A) -> posterior (N, C), transitions (A, C, C), quality (A,).
    """
    cast, count = list_votes(votes), votes.shape[1]
    found = _pooled_fit(votes, num_classes, prior, rounds)
    if count > 1 and (prior is not None or several_votes(votes)):
        own = _em(cast, found, prior, rounds, APART)
        own = _em(cast, own, prior, rounds, None)
        found = _em(cast, found, prior, 2 * rounds, Difference())  # as many rounds, or the gain is that of more rounds
        gain = len(votes) * (own.likelihood - found.likelihood) - float(price(own.counts, own.pooled, own.matrices))
        if not own.matrices.difference.none and gain > 0:
            found = own
    posterior, matrices = found.posterior, found.matrices
    quality, error = _quality(found.counts, posterior.mean(0), found.pooled, matrices)
    consensus, shown = _first_best(posterior), vote_counts(votes, num_classes).double()
    return Annotators(
        posterior=posterior,
        transitions=matrices.transitions,
        pooled=found.pooled,
        difference=matrices.difference,
        quality=quality,
        quality_error=error,
        counts=(votes != NO_VOTE).sum(0),
        consensus=consensus,
        consensus_prob=self_confidence(posterior, consensus),
        agreement=self_confidence(shown, consensus) / shown.sum(1),
        log_likelihood=found.likelihood,
    )


def fit_with_neighbors(
    neighbors: Tensor, votes: Tensor, num_classes: int, generator: Generator,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Annotators:  # fmt: skip
    """Find true classes and matrices from votes and from neighbors together.

    What the votes say of each image is propagated to the others, its own part left out; this is v. Its temperature is
    the one with which the votes are likeliest, if all annotators have one matrix: since several people look at one
    image, the votes tell it even where neighbors are often of another class. With at most one vote an image they do
    not, and neighbors are not asked; that is the case of the noise model. Propagating once more what neighbors have
    changed makes it worse.

    Args:
        neighbors: (N, K) int64, see `neighbors.nearest_neighbors`.
        votes: (N, A) int64, `NO_VOTE` where an annotator did not vote.
        num_classes: C.
        generator: draws the probes that find the share of an image's own votes.
        temperatures: factors of the propagated scores that are tried, at least 0.

    Memory grows with N x (K + C). Shape: (N, K), (N, A) -> posterior (N, C), transitions (A, C, C), quality (A,).
    """
    alone = fit_annotators(votes, num_classes)
    if not several_votes(votes):
        return alone
    graph, class_probs = neighbor_graph(neighbors), alone.posterior.float()
    marginal = class_probs.mean(0)
    scores = neighbor_scores(graph, class_probs, own_share(graph, generator))
    likelihoods = [
        _pooled_fit(votes, num_classes, sinkhorn(temperature * scores, marginal), ROUNDS).likelihood
        for temperature in temperatures
    ]
    best = temperatures[likelihoods.index(max(likelihoods))]
    return fit_annotators(votes, num_classes, sinkhorn(best * scores, marginal))._replace(temperature=best)


def with_names(transition: Tensor) -> Tensor:
    """Return the matrix with no class more often called by another name than by its own.

    Its diagonal is raised to the largest of its row, and the row divided by its sum. Without this, a prior that is
    wrong in a regular way could exchange the names of classes, since all votes would fit as well.
    Shape: (C, C), rows sum to 1 -> (C, C), rows sum to 1.
    """
    named = transition - torch.diag_embed(transition.diagonal()) + torch.diag_embed(transition.amax(1))
    return named / named.sum(1, keepdim=True)


class _Fit(NamedTuple):
    """Where EM stands."""

    posterior: Tensor
    """(N, C)."""
    counts: Tensor
    """(A, C, C), expected votes by annotator, true class and vote, from the posterior of the step before."""
    pooled: Tensor
    """(C, C)."""
    matrices: Matrices
    likelihood: float
    """Mean over images of the log-probability of their votes, in nats."""


def _pooled_fit(votes: Tensor, num_classes: int, prior: Tensor | None, rounds: int) -> _Fit:
    """Return the fit with one matrix for all annotators; that of the start where votes tell nothing. Shape: (N, A)."""
    cast = list_votes(votes)
    marginal = torch.full((num_classes,), 1 / num_classes, dtype=torch.float64, device=votes.device)
    pooled = symmetric((1 - marginal[0]) / 2, num_classes)  # above chance, or classes would lose their names
    counts = pooled.new_zeros(votes.shape[1], num_classes, num_classes)
    matrices = fit_matrices(counts, pooled, Difference())
    before = marginal if prior is None else prior.double()
    posterior, likelihood = _posterior(cast, matrices.transitions, before, len(votes))
    start = _Fit(posterior, counts, pooled, matrices, float(likelihood))
    return _em(cast, start, prior, rounds, Difference()) if prior is not None or several_votes(votes) else start


def _em(cast: VoteList, start: _Fit, prior: Tensor | None, rounds: int, difference: Difference | None) -> _Fit:
    """Run EM from a fit on, with a given difference of annotators, or else the likeliest, found anew now and then.

    Shape: V votes, prior (N, C).
    """
    posterior, counts, pooled, matrices, _ = start
    (count, classes), likelihood = posterior.shape, posterior.new_zeros(())
    shrinkage, taken = shrinkage_for(len(cast.images), classes), difference or Difference()
    for number in range(rounds):
        counts = _confusions(cast, posterior, len(counts))
        pooled = with_names(transition_of_counts(counts.sum(0), shrinkage))
        if difference is None and number % LOOK_AGAIN == 0:
            taken = likeliest_difference(counts, pooled)
        matrices = fit_matrices(counts, pooled, taken)
        before = (posterior.sum(0) + 1) / (count + classes) if prior is None else prior.double()
        posterior, likelihood = _posterior(cast, matrices.transitions, before, count)
    return _Fit(posterior, counts, pooled, matrices, float(likelihood))


def _posterior(cast: VoteList, transitions: Tensor, prior: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return P(class | votes) and the mean log-likelihood of the votes, the E-step.

    Shape: V votes, (A, C, C), (C,) or (N, C) -> (N, C), ().
    """
    tiny = torch.finfo(torch.float64).tiny
    joint = prior.clamp(min=tiny).log().expand(count, -1).clone()
    of_vote = transitions.clamp(min=tiny).log().transpose(1, 2)  # (A, k, c): a row for each vote that can be cast
    for images, annotators, labels in zip(*(each.split(CHUNK) for each in cast), strict=True):
        joint.index_add_(0, images, of_vote[annotators, labels])
    total = joint.logsumexp(1, keepdim=True)
    return (joint - total).exp(), total.mean()


def _confusions(cast: VoteList, posterior: Tensor, count: int) -> Tensor:
    """Return the expected number of votes by annotator, true class and vote. Shape: V, (N, C) -> (A, C, C)."""
    classes = posterior.shape[1]
    found = posterior.new_zeros(count * classes, classes)
    for images, annotators, labels in zip(*(each.split(CHUNK) for each in cast), strict=True):
        found.index_add_(0, annotators * classes + labels, posterior[images])
    return found.view(count, classes, classes).transpose(1, 2)


def _quality(counts: Tensor, shares: Tensor, pooled: Tensor, found: Matrices) -> tuple[Tensor, Tensor]:
    """Return the expected share of right votes of each annotator on images of all classes, and its standard error.

    Shape: counts (A, C, C), shares of classes (C,), pooled (C, C) -> (A,), (A,).
    """
    squares, together = shares.square(), pooled.diagonal()
    at_ability = (found.diagonals * shares).sum(2)
    quality = (found.abilities * at_ability).sum(1)
    variance = (found.abilities * (at_ability - quality.unsqueeze(1)).square()).sum(1)
    variance = variance + (found.diagonal_variance * squares).sum(1)
    of_pooled = together * (1 - together) / (counts.sum((0, 2)) + 1)
    return quality, (variance + (of_pooled * squares).sum()).sqrt()


def _first_best(scores: Tensor) -> Tensor:
    """Return the first class whose score is the largest, equal to so many decimals. Shape: (N, C) -> (N,) int64."""
    rounded = scores.round(decimals=DECIMALS)
    place = torch.arange(scores.shape[1], device=scores.device)
    return torch.where(rounded == rounded.amax(1, keepdim=True), place, scores.shape[1]).amin(1)
