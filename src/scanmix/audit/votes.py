"""What several annotators said of each label, and how good each annotator is.

Legend: N examples, A annotators, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scanmix.audit.evidence import Evidence
from scanmix.blocks.annotators import fit_annotators, several_votes, vote_counts


class Annotator(NamedTuple):
    """One annotator, or one column of a table."""

    annotator: str
    votes: int
    quality: float
    """Expected share of right votes, 0..1."""
    standard_error: float


class VoteFindings(NamedTuple):
    """What the votes of several annotators say; empty where each example has one label."""

    columns: Mapping[str, np.ndarray]
    """Columns of the audit, rows in the order of the training data."""
    annotators: tuple[Annotator, ...]
    """The worst first."""
    alike: bool
    """Whether the annotators cannot be told apart by their votes, so that one matrix stands for all."""
    no_majority: int
    """Examples with at least two votes of which no class has more than half."""

    def summary(self) -> dict[str, Any]:
        """Return what holds for the data set as a whole, in types that JSON has; empty without votes."""
        if not self.columns:
            return {}
        return {
            "annotators": [
                {**each._asdict(), "quality": round(each.quality, 4), "standard_error": round(each.standard_error, 4)}
                for each in self.annotators
            ],
            "annotators_alike": self.alike,
            "no_majority": self.no_majority,
        }


NO_VOTES = VoteFindings({}, (), False, 0)


def judge_votes(evidence: Evidence, prior: Tensor | None = None) -> VoteFindings:
    """Return consensus and agreement of each example and the quality of each annotator; `NO_VOTES` without any.

    Args:
        evidence: of N examples.
        prior: (N, C), rows sum to 1: v of a noise model, which has not seen the votes on an example itself.
    """
    votes = evidence.votes
    if votes is None or not several_votes(votes):
        return NO_VOTES
    found, names = fit_annotators(votes, len(evidence.class_names), prior), np.array(evidence.class_names, dtype=object)
    counts = vote_counts(votes, len(names))
    total = counts.sum(1)
    columns = {
        "votes": np.array(_in_words(counts, evidence.class_names), dtype=object),
        "consensus": names[found.consensus.numpy()],
        "consensus_prob": found.consensus_prob.numpy(),
        "agreement": found.agreement.nan_to_num(0.0).numpy(),
    }
    numbers = zip(found.counts.tolist(), found.quality.tolist(), found.quality_error.tolist(), strict=True)
    rows = [Annotator(name, *each) for name, each in zip(evidence.annotators, numbers, strict=True)]
    return VoteFindings(
        columns=columns,
        annotators=tuple(sorted(rows, key=lambda row: row.quality)),
        alike=found.difference.none,
        no_majority=int(((total > 1) & (2 * counts.amax(1) <= total)).sum()),
    )


def _in_words(counts: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return the votes on each example as "cat 2, dog 1", the most frequent first. Shape: (N, C) -> N texts."""
    texts: list[list[str]] = [[] for _ in range(len(counts))]
    order = counts.argsort(dim=1, descending=True, stable=True)
    for place in range(int((counts > 0).sum(1).max()) if len(counts) else 0):
        label = order[:, place]
        number = counts.gather(1, label.unsqueeze(1)).squeeze(1)
        for row in torch.nonzero(number).flatten().tolist():
            texts[row].append(f"{class_names[int(label[row])]} {int(number[row])}")
    return [", ".join(parts) for parts in texts]
