"""The column `reason`: the verdict on a label in one sentence, for a person who looks at the example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scanmix.blocks.label_quality import DUPLICATE, HARD, OUT_OF_SCOPE, WRONG

DECIDED_BEFORE = {
    "keep": "kept by a person; ", "accept": "accepted by a person; ", "relabel": "given by a person; ",
    "trusted": "known to be right; ",
}  # fmt: skip
"""Put before the reason of a label that a person decided in an earlier round."""


def reason(row: Mapping[str, Any], copies: Sequence[str]) -> str:
    """Return why a label has its issue type.

    Args:
        row: cells of the audit by column.
        copies: ids of a few examples with the same image (or vector) and another label.
    """
    decided = DECIDED_BEFORE.get(row.get("decided", ""), "")
    return decided + _evidence(row, copies)


def _evidence(row: Mapping[str, Any], copies: Sequence[str]) -> str:
    given, suggested = row["given"], row["suggested"]
    confidence = f"{row['confidence']:.0%}"
    if row["kind"] == DUPLICATE:
        return f"an exact copy stands under another label: {', '.join(copies)}"
    if row["kind"] == OUT_OF_SCOPE:
        return f"looks like none of the classes: {suggested} is the likeliest, with {confidence}"
    if row["kind"] == WRONG:
        return f"looks like {suggested} ({confidence}), not {given}{_neighbors(row)}{_history(row)}"
    if row["kind"] == HARD:
        return f"no clear lead: {suggested} is the likeliest, with {confidence}{_neighbors(row)}{_history(row)}"
    return f"looks like {given} ({confidence})"


def _neighbors(row: Mapping[str, Any]) -> str:
    share = row.get("neighbor_agreement")
    return "" if share is None else f"; {share:.0%} of its neighbors have its label"


def _history(row: Mapping[str, Any]) -> str:
    times = row.get("forgotten", 0)
    return f"; learned and forgotten {times} times" if times > 1 else ""
