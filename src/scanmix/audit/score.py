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
from scanmix.audit.decided import check_decisions, estimate_rate
from scanmix.audit.evidence import Evidence
from scanmix.audit.explain import explain, readings
from scanmix.audit.reasons import reason
from scanmix.audit.table import Audit
from scanmix.audit.votes import judge_votes, reading, with_votes
from scanmix.blocks.decided_rate import at_rate
from scanmix.blocks.label_quality import (
    forgetting_events,
    is_outlier,
    issue_types,
    margin,
    mean_likelihood,
    self_confidence,
    truth_posterior,
)
from scanmix.blocks.neighbors import neighbor_vote
from scanmix.blocks.noise_model import NoiseModel
from scanmix.blocks.transition import expected_confusion
from scanmix.data.examples import DECIDED

MOST_COPIES = 3
"""Copies under other labels that a reason names."""


def score_labels(evidence: Evidence) -> Audit:
    """Score every label and return the audit.

    p_clean, the suggestion, the noise rate and expected counts all come from one noise model, see `audit.explain`; with
    votes of several annotators from these.
    Labels of equal p_clean are ordered by their score: the mean of their likelihood over the whole training, or their
    final probability where no training dynamics were kept, and of the mean probability that the networks give to the
    label on the nearest neighbors, which has no part in it. Without networks it is what neighbors alone say.

    Labels that a person decided before the training come last and count as right in every count of wrong labels;
    their p_clean and kind are what the evidence says. Where it is known what they were before, they correct the noise
    rate, and the expected counts with it.

    Shape: evidence of N examples -> table of N rows, sorted.
    """
    labels, neighbors = evidence.labels, evidence.neighbors
    votes, losses = judge_votes(evidence), _losses(evidence)
    model = with_votes(explain(evidence), votes, evidence)
    score = _score(evidence, model, losses)
    decided = torch.zeros(len(labels), dtype=torch.bool) if evidence.decided is None else evidence.decided > 0
    order = torch.from_numpy(np.lexsort((score.numpy(), model.p_clean.numpy(), decided.numpy())))
    doubt = (1 - model.p_clean.double()).clamp(min=0).masked_fill(decided, 0.0)
    checked, rate = check_decisions(evidence, model), model.rate
    if checked is not None:
        rate = estimate_rate(doubt.numpy(), decided.numpy(), rate, checked).now
        doubt[~decided] = at_rate(doubt[~decided], min(rate.value * len(labels) / max(int((~decided).sum()), 1), 1.0))
        checked = checked.sorted(order.numpy())
    columns = {**_columns(evidence, model, score, losses), **votes.columns}
    columns = {name: column[order.numpy()] for name, column in columns.items()}
    columns["expected_wrong"] = doubt[order].cumsum(0).numpy().round(2)
    row_of = order.argsort()
    return Audit(
        columns=in_order(columns),
        order=order.numpy(),
        class_names=evidence.class_names,
        class_probs=model.posterior[order].numpy(),
        neighbors=None if neighbors is None else row_of[neighbors[order]].numpy(),
        epochs=tuple(snapshot.epoch for snapshot in evidence.snapshots),
        losses=losses[:, :, order].numpy(),
        noise_rate=rate,
        checked=checked,
        readings=(reading(model, votes),) if votes.columns else readings(model),
        excluded=evidence.excluded,
        votes=votes,
        confusion=expected_confusion(truth_posterior((1 - doubt).float(), model.posterior, labels), labels).numpy(),
    )


def _score(evidence: Evidence, model: NoiseModel, losses: Tensor) -> Tensor:
    """Return the column `score`. Shape: losses (T, P, N) -> (N,) in 0..1."""
    labels = evidence.labels
    if evidence.probs is None:
        return self_confidence(model.v, labels)
    probs = evidence.probs.float()
    scores = [mean_likelihood(losses) if evidence.snapshots else self_confidence(probs, labels)]
    if evidence.neighbors is not None:
        scores.append(self_confidence(neighbor_vote(evidence.neighbors, probs), labels))
    return torch.stack(scores).mean(0)


def _columns(evidence: Evidence, model: NoiseModel, score: Tensor, losses: Tensor) -> dict[str, np.ndarray]:
    """Every column but `expected_wrong`, rows in the order of the training data."""
    labels, names = evidence.labels, np.array(evidence.class_names, dtype=object)
    count, copies = len(labels), _copies(evidence)
    p_clean, class_probs = model.p_clean, model.posterior
    confidence, suggested = class_probs.max(1)
    against = (
        torch.empty(0, count, dtype=torch.bool) if evidence.predictions is None else evidence.predictions != labels
    )
    is_duplicate = torch.zeros(count, dtype=torch.bool)
    is_duplicate[list(copies)] = True
    seen = model.v if evidence.probs is None else evidence.probs.float()
    kinds = issue_types(p_clean, class_probs, seen, labels, is_duplicate, _outliers(evidence))
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
        "kind": np.array(kinds, dtype=object),
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
    if evidence.self_supervised or evidence.held_out or evidence.probs is None:
        return [OUT_OF_SAMPLE] * len(evidence.labels)
    if evidence.set_aside is None:
        return [IN_SAMPLE] * len(evidence.labels)
    return [SET_ASIDE if aside else IN_SAMPLE for aside in evidence.set_aside.tolist()]


def _letters(against: Sequence[bool]) -> str:
    """Return the letters of the networks that predict another class: "a c"."""
    return " ".join(chr(ord("a") + network) for network, differs in enumerate(against) if differs)
