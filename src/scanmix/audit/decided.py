"""What a person's decisions tell the audit: how far it was right, and how many labels are wrong besides.

Legend: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanmix.audit.evidence import Evidence
from scanmix.blocks.decided_rate import NARROW, DecidedRate, rate_with_decisions
from scanmix.blocks.label_quality import RateInterval, self_confidence
from scanmix.blocks.noise_model import NoiseModel
from scanmix.config import percent
from scanmix.data.examples import DECIDED, NOT_KNOWN

ABOUT_A_LABEL = ("keep", "accept", "relabel")
"""Decisions that say whether a label was wrong. A label that was known from the start says nothing of the others."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """Labels that were decided in earlier rounds, as they were before. Row arrays are sorted as those of the audit."""

    asked: np.ndarray
    """(N,) bool: labels that a person decided, and that are known as they were before."""
    wrong: np.ndarray
    """(N,) bool: which of them the person changed."""
    chance: np.ndarray
    """(N,) float64: chance that the label before was wrong by what neighbors say; the decision has no part in it."""
    suggested: np.ndarray
    """(N,) bool: whether the class that the audit suggests for the label before is the one that it has now."""
    model: RateInterval
    """What the model alone says of labels that nobody has decided."""

    def sorted(self, order: np.ndarray) -> Checked:
        """Return the same with rows in another order. Shape: (N,) positions."""
        rows = {name: getattr(self, name)[order] for name in ("asked", "wrong", "chance", "suggested")}
        return dataclasses.replace(self, **rows)

    def summary(self) -> dict[str, Any]:
        """Return what was expected of the decided labels, and what was found."""
        return {
            "asked": int(self.asked.sum()),
            "suggestion_right": int((self.suggested & self.asked).sum()),
            "found_wrong": int((self.wrong & self.asked).sum()),
            "expected_wrong": round(float(self.chance[self.asked].sum()), 1),
        }


def labels_before(evidence: Evidence) -> Tensor | None:
    """Return the labels before a person decided, `NOT_KNOWN` for all others; None if there are none. Shape: -> (N,)."""
    if evidence.decided is None or evidence.before is None:
        return None
    about = torch.tensor([word in ABOUT_A_LABEL for word in DECIDED])[evidence.decided.long()]
    return evidence.before.masked_fill(~about, NOT_KNOWN) if bool((about & (evidence.before >= 0)).any()) else None


def check_decisions(evidence: Evidence, model: NoiseModel) -> Checked | None:
    """Compare decisions with what the model says without them; None if there are none. Rows are not sorted."""
    before, labels = labels_before(evidence), evidence.labels
    if before is None or model.before is None or evidence.decided is None:
        return None
    asked = before >= 0
    then = torch.where(asked, before, labels)
    share = 1 - float((evidence.decided > 0).float().mean())
    return Checked(
        asked=asked.numpy(),
        wrong=(asked & (before != labels)).numpy(),
        chance=(1 - self_confidence(model.before, then).double().clamp(max=1)).numpy(),
        suggested=(model.before.argmax(1) == labels).numpy(),
        model=RateInterval(*(min(each / share, 1.0) if share else 0.0 for each in model.rate)),
    )


def estimate_rate(
    p_wrong: np.ndarray, known: np.ndarray, rate: RateInterval, checked: Checked | None = None,
    asked: np.ndarray | None = None, wrong: np.ndarray | None = None, gone: np.ndarray | None = None,
) -> DecidedRate:  # fmt: skip
    """Estimate the rate from the model and all decisions: those of earlier rounds, and `asked` since.

    Args:
        p_wrong: (N,), chance that a label is wrong by the model.
        known: (N,) bool, labels that a person has decided in earlier rounds.
        rate: what the audit found, which is the model's without `checked`.
        checked: decisions of earlier rounds.
        asked: (N,) bool, labels that were decided since, and not in earlier rounds.
        wrong: (N,) bool, which of those were wrong.
        gone: (N,) bool, labels that were left out since.
    """
    none = np.zeros(len(p_wrong), dtype=bool)
    asked, wrong, gone = (none if each is None else each for each in (asked, wrong, gone))
    chance, before, found, model = p_wrong, none, none, rate
    if checked is None:
        share = 1 - float(known.mean())
        model = RateInterval(*(min(each / share, 1.0) if share else 0.0 for each in rate))
    else:
        chance, before, found, model = checked.chance, checked.asked & ~gone, checked.wrong, checked.model
    parts = {
        "chance": chance, "p_wrong": p_wrong, "asked": asked | before, "wrong": np.where(asked, wrong, found),
        "known": asked | known | gone,
    }  # fmt: skip
    return rate_with_decisions(model=model, **{name: torch.from_numpy(part) for name, part in parts.items()})


def sentences(summary: dict[str, Any]) -> list[str]:
    """Return what the decisions tell, and how many more would tell enough, in sentences."""
    told = []
    if "before_review" in summary:
        rate, seen = summary["before_review"], summary["checked"]
        told += [
            f"Before the review {percent(rate['value'])} of the labels were wrong ({percent(rate['low'])} to "
            f"{percent(rate['high'])}); the share above is of labels that are still wrong, and nobody has decided.",
            f"Of {seen['asked']} labels that a person decided, the audit's suggestion was right for "
            f"{seen['suggestion_right']} ({percent(seen['suggestion_right'] / seen['asked'])}); it expected "
            f"{seen['expected_wrong']:.0f} of them to be wrong, and {seen['found_wrong']} were.",
        ]
    more = summary["decisions_needed"]["more"]
    within = f"± {100 * NARROW:.0f} points"
    told.append(
        f"About {more} more decisions about labels drawn at random would narrow the interval to {within}."
        if more else f"The interval is no wider than {within}."
    )  # fmt: skip
    return told
