"""What several annotators said of each label, and how good each annotator is.

Legend: N examples, A annotators, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from scanmix.audit.evidence import Evidence
from scanmix.blocks.annotators import fit_annotators, fit_with_neighbors, several_votes, vote_counts
from scanmix.blocks.label_quality import interval_from, self_confidence
from scanmix.blocks.noise_model import NoiseModel
from scanmix.config import percent
from scanmix.data.examples import NO_VOTE


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
    posterior: Tensor | None = None
    """(N, C), probability of each true class by all votes and by neighbors, in the order of the training data."""
    wrong_votes: float = 0.0
    """Expected share of single votes that are wrong, 0..1."""

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


def judge_votes(evidence: Evidence) -> VoteFindings:
    """Return what the votes on each example say and the quality of each annotator; `NO_VOTES` without several votes.

    Neighbors have a part in it, those by the pictures where they are known, since no label shaped them.
    """
    votes, classes = evidence.votes, len(evidence.class_names)
    if votes is None or not several_votes(votes):
        return NO_VOTES
    near = evidence.neighbors if evidence.image_neighbors is None else evidence.image_neighbors
    if near is None:
        found = fit_annotators(votes, classes)
    else:
        found = fit_with_neighbors(near, votes, classes, Generator().manual_seed(0))
    names = np.array(evidence.class_names, dtype=object)
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
        posterior=found.posterior.float(),
        wrong_votes=1 - float((found.quality * found.counts).sum() / found.counts.sum()),
    )


def with_votes(model: NoiseModel, votes: VoteFindings, evidence: Evidence) -> NoiseModel:
    """Return the noise model with the posterior of the votes, where there are any, in place of one label's.

    A label is wrong if the votes and neighbors together say so. The interval reaches to the share of single votes that
    are wrong: if all who look at an image make the same mistake, the label they agree on is no better than one vote.
    Shape: N examples.
    """
    if votes.posterior is None or evidence.votes is None:
        return model
    voted = (evidence.votes != NO_VOTE).any(1, keepdim=True)
    posterior = torch.where(voted, votes.posterior, model.posterior)
    before = None if model.before is None else torch.where(voted, votes.posterior, model.before)
    p_clean = self_confidence(posterior, evidence.labels).clamp(max=1)
    doubt = (1 - p_clean) if evidence.decided is None else (1 - p_clean).masked_fill(evidence.decided > 0, 0.0)
    share = 1.0 if evidence.decided is None else 1 - float((evidence.decided > 0).float().mean())
    rate = interval_from(float(doubt.mean()), [share * votes.wrong_votes], len(doubt), highest=share)
    return model._replace(posterior=posterior, before=before, p_clean=p_clean, rate=rate)


def reading(model: NoiseModel, votes: VoteFindings) -> str:
    """Return, in a sentence, what the interval of the noise rate allows for where there are votes."""
    return (
        f"If annotators err independently of each other, {percent(model.rate.value)} of the labels are wrong; if all "
        f"who look at an image make the same mistake, as many as single votes, {percent(votes.wrong_votes)}."
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
