"""From evidence to a table: how doubtful each label is, what it should be, and why.

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
"""Of the same pictures under other labels so many are named."""


def score_labels(evidence: Evidence) -> Audit:
    """Score every label by its evidence.

    The score of a label is the mean of what its scores hold: the likelihood of the label over the whole
    training (at its end, where nothing was kept of the way) and the vote of the neighbors, to each of whom the
    networks give their probabilities: the example's own label, which a network may know by heart, has no part in
    it. p_clean is the posterior of a two-component mixture on that score.

    Labels that a person decided before the training come last and count as right in every count of wrong ones; their
    own p_clean and kind stay as the evidence has them.
    """
    labels, probs, neighbors = evidence.labels, evidence.probs.float(), evidence.neighbors
    losses = _losses(evidence)
    scores = [mean_likelihood(losses) if evidence.snapshots else self_confidence(probs, labels)]
    belief = probs
    if neighbors is not None:
        vote = neighbor_vote(neighbors, probs)
        belief = (probs + vote) / 2
        scores.append(self_confidence(vote, labels))
    seen = torch.stack(scores)
    score = seen.mean(0)
    p_clean = clean_probability(-score)
    decided = torch.zeros(len(labels), dtype=torch.bool) if evidence.decided is None else evidence.decided > 0
    order = torch.from_numpy(np.lexsort((score.numpy(), p_clean.numpy(), decided.numpy())))
    believed = p_clean.masked_fill(decided, 1.0)
    posterior = truth_posterior(believed, belief, labels)
    columns = _columns(evidence, p_clean, score, belief, losses)
    columns = {name: column[order.numpy()] for name, column in columns.items()}
    columns["expected_wrong"] = (1 - believed[order].double()).cumsum(0).numpy().round(2)
    place = order.argsort()
    return Audit(
        columns=in_order(columns),
        order=order.numpy(),
        class_names=evidence.class_names,
        belief=belief[order].numpy(),
        neighbors=None if neighbors is None else place[neighbors[order]].numpy(),
        epochs=tuple(snapshot.epoch for snapshot in evidence.snapshots),
        losses=losses[:, :, order].numpy(),
        noise_rate=_noise_rate(seen, p_clean, decided),
        excluded=evidence.excluded,
        confusion=expected_confusion(posterior, labels).numpy(),
    )


def _noise_rate(seen: Tensor, p_clean: Tensor, decided: Tensor) -> RateInterval:
    """Share of all labels that are wrong, decided ones being right. Shape: (W, N), (N,), (N,) bool."""
    if not bool(decided.any()):
        return estimate_noise(seen, p_clean)
    if bool(decided.all()):
        return RateInterval(0.0, 0.0, 0.0)
    share = float((~decided).double().mean())
    return RateInterval(*(share * of_these for of_these in estimate_noise(seen[:, ~decided], p_clean[~decided])))


def _columns(
    evidence: Evidence, p_clean: Tensor, score: Tensor, belief: Tensor, losses: Tensor
) -> dict[str, np.ndarray]:
    """Every column but `expected_wrong`, rows in the order of the training data."""
    labels, names = evidence.labels, np.array(evidence.class_names, dtype=object)
    count, copies = len(labels), _copies(evidence)
    confidence, suggested = belief.max(1)
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
        "margin": margin(belief, labels).numpy(),
        "kind": np.array(issue_types(p_clean, belief, labels, is_duplicate, _outliers(evidence)), dtype=object),
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
    rows = ({name: column[i] for name, column in table.items()} for i in range(count))
    table["reason"] = np.array([reason(row, copies.get(i, ())) for i, row in enumerate(rows)], dtype=object)
    return table


def _copies(evidence: Evidence) -> dict[int, list[str]]:
    """Position of each picture that stands under another label as well -> ids of the first few of those."""
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
        few = sorted(i for places in by_label.values() for i in places[:MOST_COPIES])
        for i in group if len(by_label) > 1 else ():
            found[i] = [evidence.ids[j] for j in few if labels[j] != labels[i]][:MOST_COPIES]
    return found


def _outliers(evidence: Evidence) -> Tensor:
    """Shape: (N,) bool; nobody where there are no features to tell by."""
    if evidence.similarity is None:
        return torch.zeros(len(evidence.labels), dtype=torch.bool)
    return is_outlier(evidence.similarity)


def _losses(evidence: Evidence) -> Tensor:
    """Shape: (T, P, N)."""
    if not evidence.snapshots:
        return torch.zeros(0, 1, len(evidence.labels))
    return torch.stack([snapshot.losses.float() for snapshot in evidence.snapshots])


def _origin(evidence: Evidence) -> list[str]:
    """How much the suggestion owes to the label it judges."""
    if evidence.self_supervised:
        return [OUT_OF_SAMPLE] * len(evidence.labels)
    if evidence.set_aside is None:
        return [IN_SAMPLE] * len(evidence.labels)
    return [SET_ASIDE if aside else IN_SAMPLE for aside in evidence.set_aside.tolist()]


def _letters(against: Sequence[bool]) -> str:
    return " ".join(chr(ord("a") + place) for place, no in enumerate(against) if no)
