"""An audit as the page receives it: the order of the rows, a short table of all rows, and the details of one.

Legend: N rows, C classes.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch

from scanmix.audit import Audit
from scanmix.audit.columns import ORIGINS, issue_in_words
from scanmix.blocks.decided_rate import informative_order
from scanmix.blocks.label_quality import EVEN, FINE, ISSUE_TYPES
from scanmix.config import percent
from scanmix.data.examples import DECIDED
from scanmix.review.decisions import CHOICES, Decisions

SPOT_EVERY = 20
"""One in this many rows to check is a spot check: a label of which the audit is sure."""
SHOWN_NEIGHBORS = 6
"""Neighbors shown beside an example."""
LOOKED_WRONG = [CHOICES.index("accept"), CHOICES.index("relabel")]
CHOICE_WORDS = {
    "": "undecided", "keep": "✓ kept", "accept": "✓ accepted", "relabel": "✎ {label}",
    "trusted": "✓ known to be right", "exclude": "✕ excluded", "unsure": "? unsure",
}  # fmt: skip
"""What the page shows for a decision; it puts the name of the class in place of `{label}`."""
BEFORE_WORDS = {
    "": "", "keep": "✓ kept before", "accept": "✓ accepted before", "relabel": "✎ relabeled before",
    "trusted": "✓ known to be right",
}  # fmt: skip
"""What the page shows for a decision of an earlier round."""
WORST, RANDOM, INFORMATIVE = "worst", "random", "informative"
ORDERS = {
    WORST: "worst first", RANDOM: "in random order", INFORMATIVE: "those that tell most about the share of wrong ones",
}  # fmt: skip
"""Orders in which labels are asked, and what the page calls them."""
KEPT, EXCLUDED, UNSURE = (CHOICES.index(choice) for choice in ("keep", "exclude", "unsure"))


class Queue(NamedTuple):
    """The order in which rows are shown: those to check, then all others, decided ones last."""

    order: np.ndarray
    """(N,) rows."""
    length: int
    """Number of rows at the front of `order` that should be checked."""
    spots: np.ndarray
    """(N,) bool by row: spot checks."""
    again: bool = False
    """Whether labels that were decided in an earlier round are to be decided once more."""
    by: str = WORST
    """One of `ORDERS`."""


def make_queue(audit: Audit, again: bool = False, by: str = WORST) -> Queue:
    """Return the order of rows: doubtful labels with a few of the surest labels mixed in as spot checks.

    Spot checks are chosen by a hash of their ids, so the order is the same every time. Labels that were decided in an
    earlier round come after all others, or, with `again`, before all others. In the other `ORDERS` all labels are to
    be checked, in a random order that is the same every time: as it is, or shared out by `informative_order`.
    """
    before = audit.decided
    if by != WORST:
        return _sampled(audit, again, by)
    fine = (audit["kind"] == FINE) & ~before
    doubtful = np.flatnonzero(~fine & ~before)
    surest = np.flatnonzero(fine)[fine.sum() // 2 :]  # rows come the most doubtful first
    draws = {row: _draw(audit["id"][row]) for row in surest.tolist()}
    step = SPOT_EVERY - 1
    chosen = sorted(draws, key=draws.__getitem__)[: -(-len(doubtful) // step)]
    mixed: list[int] = []
    for block, start in enumerate(range(0, len(doubtful), step)):
        rows = doubtful[start : start + step].tolist()
        if block < len(chosen):
            rows.insert(draws[chosen[block]] % (len(rows) + 1), chosen[block])
        mixed += rows
    spots = np.zeros(len(fine), dtype=bool)
    spots[chosen] = True
    settled, rest = np.flatnonzero(before).tolist(), np.flatnonzero(fine & ~spots).tolist()
    order = [*settled, *mixed, *rest] if again else [*mixed, *rest, *settled]
    length = len(mixed) + (len(settled) if again else 0)
    return Queue(np.array(order, dtype=np.int64), length, spots, again)


def _sampled(audit: Audit, again: bool, by: str) -> Queue:
    """Return an order in which labels are drawn from all that nobody has decided, without spot checks."""
    settled, others = np.flatnonzero(audit.decided), np.flatnonzero(~audit.decided)
    draws = torch.tensor([_draw(audit["id"][row]) >> 1 for row in others.tolist()], dtype=torch.int64)
    chance = torch.from_numpy(audit.doubt[others])
    order = draws.argsort() if by == RANDOM else informative_order(chance, draws)
    parts = (settled, others[order.numpy()]) if again else (others[order.numpy()], settled)
    length = len(others) + (len(settled) if again else 0)
    return Queue(np.concatenate(parts), length, np.zeros(len(audit.decided), dtype=bool), again, by)


def table(audit: Audit, queue: Queue) -> dict[str, Any]:
    """Return what the page keeps of every row, and the words it shows, as JSON takes them.

    Columns are indexed by row of the audit; classes, kinds and choices are numbers in the lists of the same names.
    """
    number = {name: place for place, name in enumerate(audit.class_names)}
    kinds = list(ISSUE_TYPES)
    return {
        "classes": list(audit.class_names),
        "kinds": kinds,
        "kind_words": [issue_in_words(kind) for kind in kinds],
        "fine": kinds.index(FINE),
        "choices": list(CHOICES),
        "choice_words": [CHOICE_WORDS[choice] for choice in CHOICES],
        "before_words": [BEFORE_WORDS[choice] for choice in DECIDED],
        "order": queue.order.tolist(),
        "order_words": ORDERS[queue.by],
        "sampled": queue.by != WORST,
        "before": [CHOICES.index(word) for word in audit.get("decided", [""] * len(audit["id"]))],
        "again": queue.again,
        "id": audit["id"].tolist(),
        "path": audit["path"].tolist(),
        "given": [number[name] for name in audit["given"]],
        "suggested": [number[name] for name in audit["suggested"]],
        "kind": [kinds.index(kind) for kind in audit["kind"]],
        "score": _short(audit["score"]),
        "confidence": _short(audit["confidence"]),
    }


def detail(audit: Audit, row: int) -> dict[str, Any]:
    """Return everything about one row: the reason, its neighbors, its losses, and all classes by probability."""
    class_probs = audit.class_probs[row]
    classes = np.argsort(-class_probs, kind="stable")
    near = [] if audit.neighbors is None else audit.neighbors[row, :SHOWN_NEIGHBORS].tolist()
    losses = audit.losses[:, :, row]
    return {
        "reason": str(audit["reason"][row]),
        "p_clean": round(float(audit["p_clean"][row]), 4),
        "origin": ORIGINS[audit["suggestion"][row]],
        "against": str(audit["against"][row]).split(),
        "classes": [[int(place), round(float(class_probs[place]), 4)] for place in classes],
        "neighbors": near,
        "epochs": list(audit.epochs),
        "losses": [_short(losses[:, network]) for network in range(losses.shape[1])] if len(losses) else [],
        "votes": votes_in_words(audit, row),
    }


def votes_in_words(audit: Audit, row: int) -> str:
    """Return what annotators said of a row and what follows: "cat 2, dog 1 - together cat (93 %)"; "" without votes."""
    if "votes" not in audit:
        return ""
    consensus, prob = audit["consensus"][row], float(audit["consensus_prob"][row])
    return f"{audit['votes'][row]} – together {consensus} ({percent(prob, 0)})"


def progress(audit: Audit, queue: Queue, decisions: Decisions) -> dict[str, Any]:
    """Return how far the review is, what it has found, and how many wrong labels are probably left.

    The latter is estimated from the audit and from all decisions, see `blocks.decided_rate`.
    """
    codes, spots, before = decisions.codes, queue.spots, decisions.before > 0
    listed = np.zeros(len(codes), dtype=bool)
    listed[queue.order[: queue.length]] = True
    checked, decided = (codes > 0) & ~spots & ~before & (audit["kind"] != FINE), codes > 0
    settled = decided & (codes != UNSURE) & (codes != EXCLUDED) & ~before  # unsure: the given label stays
    rates = audit.rates(asked=settled, wrong=settled & (decisions.labels != decisions.given), gone=codes == EXCLUDED)
    left = [each * len(codes) for each in rates.now]
    return {
        "decided": int((decided & listed).sum()),
        "to_decide": queue.length,
        "all_decided": int((decided | before).sum()),
        "labels": len(codes),
        "looked": int(checked.sum()),
        "found": int((checked & np.isin(codes, LOOKED_WRONG)).sum()),
        "excluded": int((codes == EXCLUDED).sum()),
        "expected_left": round(left[0], 1),
        "left_low": round(left[1], 1),
        "left_high": round(left[2], 1),
        "more": rates.more,
        "expected_first": round(float(audit.doubt.sum()), 1),
        "look_wrong": int(audit.looks_wrong.sum()),
        "spots": int(spots.sum()),
        "spots_seen": int((spots & decided).sum()),
        "spots_kept": int((spots & (codes == KEPT)).sum()),
        "spot_every": SPOT_EVERY,
        **earlier_rounds(audit, decisions),
    }


def earlier_rounds(audit: Audit, decisions: Decisions) -> dict[str, int]:
    """Return counts about labels that were decided before the run.

    `before`: how many there are. `before_doubted`: of how many the audit, which treats them like all others, still
    says that the label is wrong. `before_excluded`: examples left out before the run. `again_seen`: how many were
    decided once more, `unsure` not counted. `again_same`: how many of these kept their label.
    """
    before, codes = decisions.before > 0, decisions.codes
    again = before & (codes > 0) & (codes != UNSURE)
    return {
        "before": int(before.sum()),
        "before_doubted": int((before & (audit["p_clean"] < EVEN)).sum()),
        "before_excluded": len(audit.excluded),
        "again_seen": int(again.sum()),
        "again_same": int((again & (codes == KEPT)).sum()),
    }


def _short(values: np.ndarray) -> list[float]:
    """Return numbers with four decimals; NaN becomes 0, since JSON has no NaN. Shape: (N,)."""
    numbers: list[float] = np.nan_to_num(values.astype(np.float64)).round(4).tolist()
    return numbers


def _draw(name: str) -> int:
    """Return a number that is random but always the same for an id."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
