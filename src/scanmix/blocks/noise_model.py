"""The noise model: given labels explained by what is seen and by a transition matrix, with an interval of the rate.

P(y_i | x_i) = sum_c v_i(c) T[c, y_i], see `label_likelihood`. v = Sinkhorn(exp(t F)) comes from scores F that leave
out the label of the image itself: `propagation.neighbor_scores`, `ridge.ridge_scores`. The posterior of the true class
is r_i(c) ~ v_i(c) T[c, y_i]; a label is right with probability r_i(y_i).

Given labels alone do not tell a wrong label from a class that v does not see clearly: a soft v (low t) with few wrong
labels often explains them as well as a sure v with many. So there are two readings:

- The soft reading: T is symmetric, and its rate e is averaged over the profile likelihood max_t L(t, e). It takes for
  softness of v what may be that, so it finds too few wrong labels where people err on hard images.
- The stable reading: v is as sure as it is stable. t is raised until the mean of max_c v_i(c) is the agreement a of
  two v's from disjoint halves of the labels. T is general, shrunk toward symmetry. Mistakes that both halves share
  pass for certainty, so it finds too many wrong labels where features are poor.

p_clean is (1 - a^2) soft + a^2 stable, and the interval spans both.

Prior work: HOC (Zhu et al., ICML 2021) has T from neighbors, confident learning (Northcutt et al., 2021) reads it from
confident predictions, iLPC (Lazarou et al., ICCV 2021) has balanced propagation, stability under splits of the data is
an old measure of clusterings (Lange et al., 2004).

Legend: N examples, C classes, K neighbors, H temperatures, E rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scanmix.blocks.class_shares import likeliest_shares
from scanmix.blocks.counted import Counted, count_labels
from scanmix.blocks.label_likelihood import (
    asymmetry,
    log_likelihood,
    posterior,
    symmetric,
    symmetric_posterior,
    symmetric_profile,
    symmetric_rate,
    transition_by_em,
)
from scanmix.blocks.label_quality import RateInterval, interval_from, self_confidence, truth_posterior
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, sinkhorn
from scanmix.blocks.ridge import ridge_scores

TEMPERATURES = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
"""Factors t of the scores that are tried, rising."""
TEMPER = 4.0
"""The log-likelihood is divided by this before rates are averaged: labels of neighbors are not independent evidence."""
ALLOWED = 8.0
"""Nats below the best at which a rate is still allowed: 1.35 for 90 % and independent labels, times six."""
LEAST_WEIGHT = 1e-3
"""Rates of less weight than this are left out of the average."""
LEAST_GAIN = 0.01
"""Nats a label by which a second round must be better; it sees each label twice, so that some gain is free."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the second of two sources that are tried."""
SAMPLED = 100_000
"""Most examples by which class shares and the weights of sources are chosen; their log-likelihoods are sure enough."""
SPLITS = 2
"""Random splits of the labels into halves whose agreement is averaged."""


class NoiseModel(NamedTuple):
    """What is found of the labels of N examples."""

    posterior: Tensor
    """(N, C), probability of each true class, the given label included; that of the given label is p_clean."""
    v: Tensor
    """(N, C), probability of each class in the stable reading, the given label left out."""
    transition: Tensor
    """(C, C), T[c, k] = P(given label k | true class c), as both readings expect it together."""
    p_clean: Tensor
    """(N,), probability that the given label is right."""
    rate: RateInterval
    """Share of wrong labels, the mean of 1 - p_clean, and a 90 % interval, which allows for what labels cannot tell."""
    soft_rate: float
    """Share of wrong labels in the soft reading, 0..1."""
    stable_rate: float
    """Share of wrong labels in the stable reading, 0..1."""
    agreement: float | None
    """Share of images of which two halves of the labels say the same class, 0..1; None where there are no halves."""
    temperature: float
    """The factor t of the stable reading."""
    log_likelihood: float
    """Mean of log P(y_i | x_i) in nats under general T and the likeliest t, which were fitted to the same labels."""
    before: Tensor | None = None
    """(N, C), as `posterior`, for the labels before a person's decisions; those have no part in it. None without."""


def fit_neighbors(
    neighbors: Tensor, labels: Tensor, num_classes: int, generator: Generator, marginal: Tensor | None = None,
    trusted: Tensor | None = None, components: Tensor | None = None, logits: Tensor | None = None,
    before: Tensor | None = None, linked: tuple[Tensor, Tensor] | None = None,
) -> NoiseModel:  # fmt: skip
    """Fit the noise model to what neighbors say, by balanced propagation of the given labels.

    Further sources are added with the weights that make the given labels likeliest.

    A second round propagates the posterior of the first. Where it explains the labels clearly better, as with much
    noise, it says how likely the classes other than the given one are. p_clean and the rate are those of the first
    round, since in the second a label comes back through its neighbors. Memory grows with N x (K + C).

    Args:
        neighbors: (N, K) int64, see `neighbors.nearest_neighbors`.
        labels: (N,) int64 in 0..C-1, given labels.
        num_classes: C.
        generator: draws the halves, and probes that find the share of an image's own label.
        marginal: (C,) with sum 1, share of each true class where it is known; else that of `logits`, or without them
            the likeliest, see `class_shares`.
        trusted: (N,) bool, as in `fit`.
        components: (N, P), features for a linear classifier, see `ridge.principal_components`.
        logits: (N, C), what models that did not learn from these labels say.
        before: (N,) int64, as in `fit`; the weights, too, are chosen by these labels.
        linked: the graph of these neighbors and `own_share` of it, where they are known already.

    Shape: (N, K), (N,) -> posterior (N, C), v (N, C), T (C, C), p_clean (N,).
    """
    graph = neighbor_graph(neighbors) if linked is None else linked[0]
    diagonal = own_share(graph, generator) if linked is None else linked[1]
    given = F.one_hot(labels, num_classes).float()

    def sources(class_probs: Tensor, used: Tensor | None = None) -> list[Tensor]:
        scores = [neighbor_scores(graph, class_probs, diagonal, used)]
        return scores if components is None else [*scores, ridge_scores(components, class_probs, used)]

    seen = sources(given)
    then = labels if before is None else torch.where(before < 0, labels, before)
    balance = _shares(seen[0], then, logits, generator) if marginal is None else marginal
    weights = _weights(seen, then, balance, generator)
    halves = []
    for _ in range(SPLITS):
        half = torch.rand(len(labels), generator=generator, device=generator.device) < 0.5
        halves.append((_combined(sources(given, half), weights), _combined(sources(given, ~half), weights)))
    if logits is not None:
        together = [_combined(seen, weights), logits]
        scores = _combined(together, _weights(together, then, balance, generator))
        return fit(scores, labels, balance, halves, trusted, before)
    first = fit(_combined(seen, weights), labels, balance, halves, trusted, before)
    again = _combined(sources(first.posterior), weights)
    second = fit(again, labels, balance, trusted=trusted, before=before)
    if second.log_likelihood < first.log_likelihood + LEAST_GAIN:
        return first
    v = sinkhorn(first.temperature * again, balance)
    others = posterior(v, first.transition, labels)
    return first._replace(posterior=truth_posterior(first.p_clean, others, labels))


def fit(
    scores: Tensor,
    labels: Tensor,
    marginal: Tensor,
    halves: Sequence[tuple[Tensor, Tensor]] = (),
    trusted: Tensor | None = None,
    before: Tensor | None = None,
) -> NoiseModel:
    """Fit temperature, rate and T to the given labels.

    Without `halves` the soft reading stands alone, and the interval reaches to the share that v contradicts.

    Args:
        scores: (N, C), logits of the classes up to a factor; the label of each image must have no part in its row.
        labels: (N,) int64 in 0..C-1, given labels.
        marginal: (C,) with sum 1, share of each true class.
        halves: pairs of scores (N, C) that come from disjoint halves of the labels.
        trusted: (N,) bool, labels that are known to be right. They have no part in the likelihood, and the rate counts
            them as right; their p_clean and posterior are what holds for a label like theirs that nobody has checked.
        before: (N,) int64, the labels before a person decided, -1 where nobody has, or that is not known. The
            likelihood is of these; with decided labels as true classes they are pairs that count in T, see `counted`.

    Shape: (N, C), (N,), (C,) -> posterior (N, C), v (N, C), T (C, C), p_clean (N,).
    """
    classes = scores.shape[1]
    seen = count_labels(labels, trusted, before, classes)
    confidence, sureness = _confidences(scores, seen.given, marginal)
    rates, likely = symmetric_profile(confidence[:, seen.counted], classes)
    likeliest = int(likely.amax(1).argmax())
    v = sinkhorn(TEMPERATURES[likeliest] * scores, marginal)
    agreement = _agreement(halves, TEMPERATURES[likeliest], marginal)
    even, general, gain = _transitions(v[seen.others], labels[seen.others], seen.pairs)
    reached, bend = log_likelihood(v[seen.counted], general, seen.given[seen.counted]), asymmetry(gain, classes)

    raised, weight = likeliest, 0.0
    if agreement is not None:
        weight = agreement**2
        raised = max([likeliest, *(h for h, sure in enumerate(sureness) if sure <= agreement)])
    v = sinkhorn(TEMPERATURES[raised] * scores, marginal)
    even, general, _ = _transitions(v[seen.others], labels[seen.others], seen.pairs)
    stable_transition = torch.lerp(even, general, bend)
    stable = posterior(v, stable_transition, labels)
    soft, soft_rate = _soft_posterior(scores, labels, marginal, rates, likely)
    together = torch.lerp(soft, stable, weight)
    p_clean = self_confidence(together, labels).clamp(max=1)
    if before is not None:
        soft_before, _ = _soft_posterior(scores, seen.given, marginal, rates, likely)
        before = torch.lerp(soft_before, posterior(v, stable_transition, seen.given), weight)

    ends = rates[likely.amax(0) >= likely.max() - ALLOWED].tolist()
    ends += _ends_of_v(v[seen.counted], general, seen.given[seen.counted], agreement)
    return NoiseModel(
        posterior=together, v=v, p_clean=p_clean, agreement=agreement, temperature=TEMPERATURES[raised], before=before,
        transition=torch.lerp(symmetric(soft_rate, classes), stable_transition, weight),
        rate=_interval(p_clean, ends, seen),
        soft_rate=_wrong(soft[seen.others], labels[seen.others]),
        stable_rate=_wrong(stable[seen.others], labels[seen.others]),
        log_likelihood=reached / int(seen.counted.sum()),
    )  # fmt: skip


def _ends_of_v(v: Tensor, transition: Tensor, labels: Tensor, agreement: float | None) -> list[float]:
    """Return rates that follow from what v says of the labels, and from T that is not shrunk.

    Shape: (N, C), (C, C), (N,) -> two or three shares.
    """
    predicted = float((v.argmax(1) == labels).float().mean())
    return [*_contradicted(predicted, agreement), _wrong(posterior(v, transition, labels), labels)]


def _shares(scores: Tensor, labels: Tensor, logits: Tensor | None, generator: Generator) -> Tensor:
    """Return the shares of the true classes: those of `logits`, or without them the likeliest. Shape: -> (C,)."""
    if logits is not None:
        return logits.softmax(1).mean(0)
    drawn = _sampled(len(labels), generator)
    return likeliest_shares(scores[drawn], labels[drawn])


def _weights(sources: Sequence[Tensor], labels: Tensor, marginal: Tensor, generator: Generator) -> list[float]:
    """Return the weights of one or two sources: likeliest temperatures, and the likeliest of `SHARES`.

    Shape: (N, C) each, (N,), (C,) -> a number each.
    """
    if len(sources) == 1:
        return [1.0]
    drawn = _sampled(len(labels), generator)
    sources, labels = [source[drawn] for source in sources], labels[drawn]
    scales = []
    for source in sources:
        _, likely = symmetric_profile(_confidences(source, labels, marginal)[0], source.shape[1])
        scales.append(TEMPERATURES[int(likely.amax(1).argmax())])
    best = [1.0, 0.0], -torch.inf
    for share in SHARES:
        weights = [(1 - share) * scales[0], share * scales[1]]
        confidence = self_confidence(sinkhorn(_combined(sources, weights), marginal), labels)
        likelihood = float(symmetric_profile(confidence.unsqueeze(0), sources[0].shape[1])[1].max())
        best = max(best, (weights, likelihood), key=lambda found: found[1])
    return best[0]


def _sampled(count: int, generator: Generator) -> Tensor | slice:
    """Return positions of `SAMPLED` examples drawn at random; all of them where there are no more."""
    if count <= SAMPLED:
        return slice(None)
    return torch.randperm(count, generator=generator, device=generator.device)[:SAMPLED]


def _combined(sources: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of scores. Shape: (N, C) each, a number each -> (N, C)."""
    return sum((weight * source for weight, source in zip(weights, sources, strict=True)), torch.zeros_like(sources[0]))


def _confidences(scores: Tensor, labels: Tensor, marginal: Tensor) -> tuple[Tensor, list[float]]:
    """Return v_i(y_i) and the mean of max_c v_i(c) for each of `TEMPERATURES`. Shape: -> (H, N), H numbers."""
    confidence, sureness = [], []
    for temperature in TEMPERATURES:
        v = sinkhorn(temperature * scores, marginal)
        confidence.append(self_confidence(v, labels))
        sureness.append(float(v.amax(1).mean()))
    return torch.stack(confidence), sureness


def _agreement(halves: Sequence[tuple[Tensor, Tensor]], temperature: float, marginal: Tensor) -> float | None:
    """Return the share of images of which both halves of the labels say the same class; None without halves."""
    if not halves:
        return None
    predicted = [[sinkhorn(temperature * scores, marginal).argmax(1) for scores in pair] for pair in halves]
    return float(torch.stack([one == other for one, other in predicted]).float().mean())


def _transitions(v: Tensor, labels: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the likeliest symmetric T, the likeliest T, and the log-likelihood in nats that the latter gains.

    Shape: (N, C), (N,), (C, C) counts of true class x label -> (C, C), (C, C), scalar.
    """
    classes = v.shape[1]
    right, tiny = float(pairs.trace()), torch.finfo(v.dtype).tiny
    rate = symmetric_rate(self_confidence(v, labels), classes, known=(right, float(pairs.sum()) - right))
    even = symmetric(rate, classes)
    general = transition_by_em(v, labels, even, known=pairs)
    gain = log_likelihood(v, general, labels) - log_likelihood(v, even, labels)
    pinned = pairs * (general.clamp(min=tiny).log() - even.clamp(min=tiny).log())
    return even, general, gain + float(pinned.sum())


def _contradicted(predicted: float, agreement: float | None) -> list[float]:
    """Return rates e of wrong labels that follow from the share of labels that v predicts, each in 0..1.

    Where v is right in a share a of the images and its errors coincide with no label, it predicts a (1 - e) of them.
    The agreement of the halves is one guess of a, and 1 the other: every label that v contradicts is wrong then.
    """
    guesses = [1.0] if agreement is None else [agreement, 1.0]
    return [1 - min(predicted / guess, 1.0) if guess > 0 else 0.0 for guess in guesses]


def _soft_posterior(
    scores: Tensor, labels: Tensor, marginal: Tensor, rates: Tensor, likely: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the posterior and the rate, averaged over rates by the tempered profile likelihood.

    Shape: (N, C), (N,), (C,), (E,), (H, E) -> (N, C), scalar.
    """
    best, temperatures = likely.max(0)
    width = torch.full_like(rates, torch.finfo(rates.dtype).tiny)  # with one class there is only the rate 0
    width[1:] += rates.diff() / 2
    width[:-1] += rates.diff() / 2
    weights = ((best - best.max()) / TEMPER).exp() * width
    weights = torch.where(weights < LEAST_WEIGHT * weights.sum(), 0.0, weights)
    weights = weights / weights.sum()
    total = torch.zeros_like(scores)
    for h in temperatures[weights > 0].unique().tolist():
        chosen = (temperatures == h) & (weights > 0)
        v = sinkhorn(TEMPERATURES[h] * scores, marginal)
        total += symmetric_posterior(v, labels, rates[chosen], weights[chosen])
    return total, (weights * rates).sum().to(scores)


def _wrong(posterior: Tensor, labels: Tensor) -> float:
    """Return the expected share of wrong labels, 0..1; 0 without labels. Shape: (N, C), (N,) -> scalar."""
    return 1 - float(self_confidence(posterior, labels).mean()) if len(labels) else 0.0


def _interval(p_clean: Tensor, ends: Sequence[float], seen: Counted) -> RateInterval:
    """Return the rate with an interval from the lowest to the highest of `ends`, widened by the sampling error.

    `ends` are shares of the labels that count, as they were before a person decided. Shape: (N,) -> shares of N.
    """
    count = len(p_clean)
    value = float((1 - p_clean).masked_fill(seen.known, 0.0).mean())
    left = [max(end * int(seen.counted.sum()) - seen.found, 0.0) / count for end in ends]
    return interval_from(value, left, count, highest=1 - float(seen.known.float().mean()))
