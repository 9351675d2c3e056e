"""From evidence to the table of an audit: how doubtful each label is, which class it should have, and why.

Legend: N examples, C classes, K neighbors, P networks, T snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.audit.columns import IN_SAMPLE, OUT_OF_SAMPLE, SET_ASIDE, in_order
from scanmix.audit.evidence import Evidence
from scanmix.audit.reasons import reason
from scanmix.audit.table import Audit
from scanmix.audit.votes import judge_votes
from scanmix.blocks.divide import clean_probability
from scanmix.blocks.label_quality import (
    RateInterval,
    estimate_noise,
    forgetting_events,
    is_outlier,
    issue_types,
    margin,
    mean_likelihood,
    self_confidence,
    truth_posterior,
)
from scanmix.blocks.neighbors import neighbor_vote
from scanmix.blocks.transition import expected_confusion
from scanmix.data.examples import DECIDED

MOST_COPIES = 3
"""Copies under other labels that a reason names."""


def score_labels(evidence: Evidence) -> Audit:
    """Score every label and return the audit.

    The score of a label is the mean of up to two signals. The first is the likelihood of the label over the whole
    training, or its final probability where no training dynamics were kept. The second is the mean probability that
    the networks give to the label on the example's nearest neighbors; the example's own label, which a network may
    have memorized, has no part in it. p_clean is the posterior of a two-component mixture fitted to the scores.

    Labels that a person decided before the training come last and count as right in every count of wrong labels;
    their p_clean and kind stay what the evidence says.

    Shape: evidence of N examples -> table of N rows, sorted.
    """
    labels, probs, neighbors = evidence.labels, evidence.probs.float(), evidence.neighbors
    losses = _losses(evidence)
    scores = [mean_likelihood(losses) if evidence.snapshots else self_confidence(probs, labels)]
    class_probs = probs
    if neighbors is not None:
        vote = neighbor_vote(neighbors, probs)
        class_probs = (probs + vote) / 2
        scores.append(self_confidence(vote, labels))
    signals = torch.stack(scores)
    score = signals.mean(0)
    p_clean = clean_probability(-score)
    decided = torch.zeros(len(labels), dtype=torch.bool) if evidence.decided is None else evidence.decided > 0
    order = torch.from_numpy(np.lexsort((score.numpy(), p_clean.numpy(), decided.numpy())))
    trusted = p_clean.masked_fill(decided, 1.0)
    posterior = truth_posterior(trusted, class_probs, labels)
    votes = judge_votes(evidence)
    columns = {**_columns(evidence, p_clean, score, class_probs, losses), **votes.columns}
    columns = {name: column[order.numpy()] for name, column in columns.items()}
    columns["expected_wrong"] = (1 - trusted[order].double()).cumsum(0).numpy().round(2)
    row_of = order.argsort()
    return Audit(
        columns=in_order(columns),
        order=order.numpy(),
        class_names=evidence.class_names,
        class_probs=class_probs[order].numpy(),
        neighbors=None if neighbors is None else row_of[neighbors[order]].numpy(),
        epochs=tuple(snapshot.epoch for snapshot in evidence.snapshots),
        losses=losses[:, :, order].numpy(),
        noise_rate=_noise_rate(signals, p_clean, decided),
        excluded=evidence.excluded,
        votes=votes,
        confusion=expected_confusion(posterior, labels).numpy(),
    )


def _noise_rate(signals: Tensor, p_clean: Tensor, decided: Tensor) -> RateInterval:
    """Return the estimated share of wrong labels among all, decided ones counted as right.

    Shape: (W, N), (N,), (N,) bool -> interval.
    """
    if not bool(decided.any()):
        return estimate_noise(signals, p_clean)
    if bool(decided.all()):
        return RateInterval(0.0, 0.0, 0.0)
    share = float((~decided).double().mean())
    return RateInterval(*(share * rate for rate in estimate_noise(signals[:, ~decided], p_clean[~decided])))


def _columns(
    evidence: Evidence, p_clean: Tensor, score: Tensor, class_probs: Tensor, losses: Tensor
) -> dict[str, np.ndarray]:
    """Every column but `expected_wrong`, rows in the order of the training data."""
    labels, names = evidence.labels, np.array(evidence.class_names, dtype=object)
    count, copies = len(labels), _copies(evidence)
    confidence, suggested = class_probs.max(1)
    against = evidence.predictions != labels
    is_duplicate = torch.zeros(count, dtype=torch.bool)
    is_duplicate[list(copies)] = True
    predicted = [snapshot.predictions == labels for snapshot in evidence.snapshots]
    table: dict[str, np.ndarray] = {
        "id": np.array(evidence.ids, dtype=object),
        "path": np.array(evidence.paths or ("",) * count, dtype=object),
        "given": names[labels.numpy()],
        "suggested": names[suggested.numpy()],
        "p_clean": p_clean.numpy(),
        "score": score.numpy(),
        "confidence": confidence.numpy(),
        "margin": margin(class_probs, labels).numpy(),
        "kind": np.array(issue_types(p_clean, class_probs, labels, is_duplicate, _outliers(evidence)), dtype=object),
    }
    if evidence.neighbors is not None:
        shown = F.one_hot(labels, len(names)).float()
        votes = neighbor_vote(evidence.neighbors, shown)
        table["neighbor_vote"] = names[votes.argmax(1).numpy()]
        table["neighbor_agreement"] = self_confidence(votes, labels).numpy()
    if len(losses):
        table["loss_mean"] = losses.mean((0, 1)).numpy()
        table["loss_last"] = losses[-1].mean(0).numpy()
        table["forgotten"] = forgetting_events(torch.stack(predicted)).numpy()
    table["against"] = np.array([_letters(column) for column in against.T.tolist()], dtype=object)
    table["suggestion"] = np.array(_origin(evidence), dtype=object)
    if evidence.decided is not None:
        table["decided"] = np.array(DECIDED, dtype=object)[evidence.decided.numpy()]
    # revisit: a Python loop over N rows, where everything above works on whole columns.
    rows = ({name: column[i] for name, column in table.items()} for i in range(count))
    table["reason"] = np.array([reason(row, copies.get(i, ())) for i, row in enumerate(rows)], dtype=object)
    return table


def _copies(evidence: Evidence) -> dict[int, list[str]]:
    """Return, for each example whose image also stands under another label, ids of the first few such copies.

    Keys are positions in the training data.
    """
    if evidence.pictures is None:
        return {}
    first, labels = evidence.pictures.tolist(), evidence.labels.tolist()
    groups: dict[int, list[int]] = {}
    for i in (evidence.pictures != torch.arange(len(first))).nonzero().flatten().tolist():
        groups.setdefault(first[i], [first[i]]).append(i)
    found = {}
    for group in groups.values():
        by_label: dict[int, list[int]] = {}
        for i in group:
            by_label.setdefault(labels[i], []).append(i)
        # A few of each label are enough to name; a large group would otherwise cost its size squared.
        few = sorted(i for members in by_label.values() for i in members[:MOST_COPIES])
        for i in group if len(by_label) > 1 else ():
            found[i] = [evidence.ids[j] for j in few if labels[j] != labels[i]][:MOST_COPIES]
    return found


def _outliers(evidence: Evidence) -> Tensor:
    """Return which examples are outliers; none where there are no features. Shape: -> (N,) bool."""
    if evidence.similarity is None:
        return torch.zeros(len(evidence.labels), dtype=torch.bool)
    return is_outlier(evidence.similarity)


def _losses(evidence: Evidence) -> Tensor:
    """Return the losses of given labels in all snapshots. Shape: -> (T, P, N), T = 0 without snapshots."""
    if not evidence.snapshots:
        return torch.zeros(0, 1, len(evidence.labels))
    return torch.stack([snapshot.losses.float() for snapshot in evidence.snapshots])


def _origin(evidence: Evidence) -> list[str]:
    """Return the column `suggestion`: whether the networks learned from the label that they judge."""
    if evidence.self_supervised:
        return [OUT_OF_SAMPLE] * len(evidence.labels)
    if evidence.set_aside is None:
        return [IN_SAMPLE] * len(evidence.labels)
    return [SET_ASIDE if aside else IN_SAMPLE for aside in evidence.set_aside.tolist()]


def _letters(against: Sequence[bool]) -> str:
    """Return the letters of the networks that predict another class: "a c"."""
    return " ".join(chr(ord("a") + network) for network, differs in enumerate(against) if differs)
