"""The reason of a verdict in one sentence, for somebody who looks at the example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scanmix.blocks.label_quality import DUPLICATE, HARD, OUT_OF_SCOPE, WRONG

DECIDED_BEFORE = {"keep": "kept by a person; ", "accept": "accepted by a person; ", "relabel": "given by a person; "}
"""What stands before the evidence of a label that was decided in an earlier round."""


def reason(row: Mapping[str, Any], copies: Sequence[str]) -> str:
    """Say why a label has its kind.

    Args:
        row: the cells of the audit, by column.
        copies: ids of a few of the same pictures or vectors under other labels.
    """
    decided = DECIDED_BEFORE.get(row.get("decided", ""), "")
    return decided + _evidence(row, copies)


def _evidence(row: Mapping[str, Any], copies: Sequence[str]) -> str:
    given, suggested = row["given"], row["suggested"]
    sure = f"{row['confidence']:.0%}"
    if row["kind"] == DUPLICATE:
        return f"an exact copy stands under another label: {', '.join(copies)}"
    if row["kind"] == OUT_OF_SCOPE:
        return f"looks like none of the classes: {suggested} is the likeliest, with {sure}"
    if row["kind"] == WRONG:
        return f"looks like {suggested} ({sure}), not {given}{_neighbors(row)}{_history(row)}"
    if row["kind"] == HARD:
        return f"no clear lead: {suggested} is the likeliest, with {sure}{_neighbors(row)}{_history(row)}"
    return f"looks like {given} ({sure})"


def _neighbors(row: Mapping[str, Any]) -> str:
    share = row.get("neighbor_agreement")
    return "" if share is None else f"; {share:.0%} of its neighbors have its label"


def _history(row: Mapping[str, Any]) -> str:
    times = row.get("forgotten", 0)
    return f"; learned and forgotten {times} times" if times > 1 else ""
