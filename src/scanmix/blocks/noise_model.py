"""The noise model: given labels explained by what neighbors say of the class and by a transition matrix.

P(y_i | x_i) = sum_c v_i(c) T[c, y_i], where v is balanced label propagation and T[c, k] = P(given label k | true class
c). Both are fitted to the given labels. The posterior of the true class is r_i(c) ~ v_i(c) T[c, y_i], and the
probability that a given label is right is r_i(y_i). v leaves out the label of the image itself; otherwise the model
would explain each label by itself.

Prior work: HOC (Zhu et al., ICML 2021) has T from neighbors, confident learning (Northcutt et al., 2021) reads it from
confident predictions, iLPC (Lazarou et al., ICCV 2021) has balanced propagation.

Legend: N examples, C classes, K neighbors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.label_quality import self_confidence
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, sinkhorn
from scanmix.blocks.transition import expected_confusion, transition_matrix

CHUNK = 65536
"""Rows whose joint probabilities are held at once."""
START = 0.5
"""Diagonal of the matrix that EM starts from. Where it ends does not depend on it, only how soon."""
LEAST = 5
"""Images of each predicted class that T is read from, where a class has so many, however small the share."""
TEMPERATURES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Temperatures of the propagated scores that are tried."""

EstimateTransition = Callable[[Tensor, Tensor], Tensor]
"""From v (N, C) and given labels (N,) to T (C, C), rows sum to 1."""


class Candidate(NamedTuple):
    """A temperature that was tried, and what followed from it."""

    temperature: float
    log_likelihood: float
    """Mean of log P(y_i | x_i) in nats."""
    estimated_rate: float
    """1 - mean p_clean, 0..1."""


class NoiseModel(NamedTuple):
    """What `fit` finds of the labels of N examples."""

    posterior: Tensor
    """(N, C), probability r of each true class, from neighbors and the given label."""
    v: Tensor
    """(N, C), probability of each class from the neighbors alone, the given label left out."""
    transition: Tensor
    """(C, C), T[c, k] = P(given label k | true class c)."""
    p_clean: Tensor
    """(N,), probability that the given label is right."""
    log_likelihood: float
    """Mean of log P(y_i | x_i) in nats. It is not of held-out labels: T and the temperature were fitted to them."""
    temperature: float
    """The temperature of v."""
    rounds: int
    """Rounds after which the model was best; 1 is the fit with labels as they were given."""
    tried: tuple[Candidate, ...]
    """All temperatures of the best round. A soft v with a sharp T often explains labels as well as the reverse: where
    the likelihoods are nearly equal and the rates are not, the labels do not tell the rate."""

    @property
    def estimated_rate(self) -> float:
        """Share of wrong labels, 0..1: 1 - mean p_clean."""
        return 1 - float(self.p_clean.mean())


def likelihoods(v: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """Return P(y_i | x_i) = sum_c v_i(c) T[c, y_i]. Shape: (N, C), (C, C), (N,) int64 -> (N,) in 0..1."""
    columns = transition.T.contiguous()
    parts = zip(v.split(CHUNK), labels.split(CHUNK), strict=True)
    return torch.cat([(rows * columns[given]).sum(1) for rows, given in parts])


def mean_log_likelihood(v: Tensor, transition: Tensor, labels: Tensor) -> float:
    """Return the mean of log P(y_i | x_i) in nats; a label that cannot be counts as the smallest number that is not 0.

    A device synchronization. Shape: (N, C), (C, C), (N,) int64 -> scalar.
    """
    return float(likelihoods(v, transition, labels).clamp(min=torch.finfo(v.dtype).tiny).log().mean())


def posterior(v: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """Return r_i(c) ~ v_i(c) T[c, y_i], the probability of each true class given neighbors and label.

    Where the model allows no class for a label, the label tells nothing and r = v.
    Shape: (N, C), (C, C), (N,) int64 -> (N, C), rows sum to 1.
    """
    found, columns = torch.empty_like(v), transition.T.contiguous()
    for rows, given, out in zip(v.split(CHUNK), labels.split(CHUNK), found.split(CHUNK), strict=True):
        torch.mul(rows, columns[given], out=out)
        total = out.sum(1, keepdim=True)
        possible = total > torch.finfo(v.dtype).tiny
        out.copy_(torch.where(possible, out / torch.where(possible, total, 1.0), rows))
    return found


def symmetric(diagonal: Tensor, num_classes: int) -> Tensor:
    """Return the matrix of symmetric noise with this diagonal (0..1) and the rest even; with one class it is 1.

    Shape: scalar -> (C, C), rows sum to 1.
    """
    rest = (1 - diagonal) / max(num_classes - 1, 1)
    found = rest.repeat(num_classes, num_classes).fill_diagonal_(0)
    return found + torch.diag_embed(1 - found.sum(1))


def transition_of_counts(counts: Tensor, shrinkage: float) -> Tensor:
    """Return the rows of `counts` as shares, mixed with the symmetric matrix that has the same mean diagonal.

    A class without counts gets its row from the symmetric matrix. That matrix never says that labels cannot be wrong:
    its diagonal is at most 1 - 1 / (total + 2), the rule of succession.
    Shape: (C, C) not negative, true class x given label -> (C, C), rows sum to 1. `shrinkage` is in 0..1.
    """
    rows = counts.sum(1)
    seen = (rows > 0).to(counts)
    shares = transition_matrix(counts)
    diagonal = (shares.diagonal() * seen).sum() / seen.sum().clamp(min=1)
    even = symmetric(diagonal.minimum(1 - 1 / (rows.sum() + 2)), len(counts))
    return torch.where(seen.unsqueeze(1) > 0, torch.lerp(shares, even, shrinkage), even)


def shrinkage_for(count: int, num_classes: int) -> float:
    """Return s = 1 / (1 + N / (20 C^2)), in 0..1: with few images for each entry of T, symmetry is trusted more."""
    return 1 / (1 + count / (20 * num_classes**2))


def expected_counts(v: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of r_i(c) over the images with each given label, the E-step of EM for T.

    Memory beyond the inputs does not grow with N. Shape: (N, C), (C, C), (N,) int64 -> (C, C), true class x label.
    """
    found = torch.zeros_like(transition)
    for rows, given in zip(v.split(CHUNK), labels.split(CHUNK), strict=True):
        found += expected_confusion(posterior(rows, transition, given), given)
    return found


def transition_by_em(v: Tensor, labels: Tensor, rounds: int = 30, shrinkage: float = 0.0) -> Tensor:
    """Return the T that makes the given labels likeliest, by EM over all images.

    The log-likelihood is concave in T for a given v, so EM cannot end at a lesser maximum. It takes confusions of
    people for softness of v where v is soft between the same classes: there it finds too little noise.
    Shape: (N, C), (N,) int64 -> (C, C), rows sum to 1. `rounds` is at least 1, `shrinkage` in 0..1.
    """
    classes = v.shape[1]
    transition = symmetric(v.new_tensor(START), classes)
    counts = transition
    for _ in range(rounds):
        counts = expected_counts(v, transition, labels)
        transition = transition_of_counts(counts, 0.0)
    return transition_of_counts(counts, shrinkage)


def transition_symmetric(v: Tensor, labels: Tensor, rounds: int = 60) -> Tensor:
    """Return the symmetric T that makes the given labels likeliest, by EM for its one free number, the diagonal.

    With one number to find, it is the steadiest where neighbors are often wrong. It is blind to mistakes that prefer
    a class: labels of such images pass for right ones. The log-likelihood is concave in the diagonal. The diagonal is
    at most 1 - 1 / (N + 2), as in `transition_of_counts`.
    Shape: (N, C), (N,) int64 -> (C, C), rows sum to 1. `rounds` is at least 1.
    """
    count, classes = v.shape
    diagonal = v.new_tensor(START)
    for _ in range(rounds):
        found = posterior(v, symmetric(diagonal, classes), labels)
        diagonal = self_confidence(found, labels).mean().clamp(max=1 - 1 / (count + 2))
    return symmetric(diagonal, classes)


def transition_from_confident(v: Tensor, labels: Tensor, share: float = 0.3) -> Tensor:
    """Return T from the given labels of the images whose class v is surest of, as confident learning does.

    Of each predicted class, the argmax of v, this share is taken, at least `LEAST` images; T is shrunk by
    `shrinkage_for`. These images are taken to belong to the class that is predicted. Where neighbors are often wrong
    they do not, and T has too much noise. Sorts N numbers twice.
    Shape: (N, C), (N,) int64 -> (C, C), rows sum to 1. `share` is in 0..1.
    """
    count, classes = v.shape
    confidence, predicted = v.max(1)
    order = confidence.argsort(descending=True, stable=True)
    order = order[predicted[order].argsort(stable=True)]  # by class, the most confident first
    sizes = predicted.bincount(minlength=classes)
    place = torch.arange(count, device=v.device) - (sizes.cumsum(0) - sizes)[predicted[order]]
    chosen = order[place < (share * sizes).long().clamp(min=LEAST)[predicted[order]]]
    counts = (predicted[chosen] * classes + labels[chosen]).bincount(minlength=classes**2)
    return transition_of_counts(counts.view(classes, classes).to(v), shrinkage_for(count, classes))


def fit(
    neighbors: Tensor,
    labels: Tensor,
    num_classes: int,
    generator: Generator,
    estimate: EstimateTransition = transition_from_confident,
    marginal: Tensor | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
    max_rounds: int = 4,
) -> NoiseModel:
    """Fit v and T to the given labels, in rounds.

    The first round propagates the labels as they were given. It tries all temperatures and takes the one with which
    the given labels are likeliest. Each further round propagates the posterior of the one before, until the likelihood
    does not rise. Only the first round is free of a label's own influence altogether: in later ones it comes back
    through the posteriors of the neighbors. Memory grows with N x (K + C).

    Args:
        neighbors: (N, K) int64, see `neighbors.nearest_neighbors`.
        labels: (N,) int64 in 0..C-1, given labels.
        num_classes: C.
        generator: draws the probes that find the share of an image's own label.
        estimate: finds T for a given v.
        marginal: (C,) with sum 1, share of each true class where it is known; else that of the given labels.
        temperatures: factors of the propagated scores that are tried, above 0.
        max_rounds: most rounds, at least 1.

    Shape: (N, K), (N,) -> posterior (N, C), v (N, C), T (C, C), p_clean (N,).
    """
    graph = neighbor_graph(neighbors)
    own = own_share(graph, generator)
    class_probs = F.one_hot(labels, num_classes).float()
    balance = class_probs.mean(0) if marginal is None else marginal
    best: NoiseModel | None = None
    for number in range(1, max_rounds + 1):
        scores = neighbor_scores(graph, class_probs, own)
        found = _best_temperature(scores, balance, labels, estimate, temperatures)
        if best is not None and found.log_likelihood <= best.log_likelihood:
            break
        best = found._replace(rounds=number)
        class_probs = best.posterior
    assert best is not None
    return best


def _best_temperature(
    scores: Tensor, marginal: Tensor, labels: Tensor, estimate: EstimateTransition, temperatures: Sequence[float]
) -> NoiseModel:
    """Return the model whose temperature makes the given labels likeliest; the first of equal ones.

    Shape: (N, C), (C,), (N,) -> (N, C), (N, C), (C, C), (N,).
    """
    best: NoiseModel | None = None
    tried: list[Candidate] = []
    for temperature in temperatures:
        v = sinkhorn(temperature * scores, marginal)
        transition = estimate(v, labels)
        value, found = mean_log_likelihood(v, transition, labels), posterior(v, transition, labels)
        model = NoiseModel(found, v, transition, self_confidence(found, labels), value, temperature, 1, ())
        tried.append(Candidate(temperature, value, model.estimated_rate))
        if best is None or value > best.log_likelihood:
            best = model
    assert best is not None
    return best._replace(tried=tuple(tried))
