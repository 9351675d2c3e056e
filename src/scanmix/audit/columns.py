"""The columns of an audit, declared once: `labels.csv`, data frames, review, report, docs and tests read this list.

A new column is a line in `COLUMNS` and a value in `audit.score`; a new issue type is a rule in `blocks.label_quality`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from scanmix.blocks.label_quality import ISSUE_TYPES

Cells = TypeVar("Cells")
ALWAYS, WITH_NEIGHBORS = "always", "with features"
WITH_DYNAMICS, WITH_DECISIONS = "with training dynamics", "after `train --labels`"
WITH_VOTES = "with several annotators"
TYPE_NAMES = {str: "text", float: "number", int: "whole number"}


@dataclass(frozen=True)
class Column:
    """A column of the table: `when` says in which audits it is present."""

    name: str
    type: type[str] | type[float] | type[int]
    meaning: str
    when: str = ALWAYS


COLUMNS = (
    Column("id", str, "Name of the example, unique in the data set."),
    Column("path", str, "Its file; empty if it does not come from a file."),
    Column("given", str, "Its given label."),
    Column("suggested", str, "The class that is likeliest by the noise model, the given label included."),
    Column("p_clean", float, "Probability (0 to 1) that the given label is right."),
    Column("score", float, "Support of networks and neighbors for the label (0 to 1); orders equal `p_clean`."),
    Column("confidence", float, "Probability of the suggested class (0 to 1)."),
    Column("margin", float, "Probability of the given label minus that of the best other class (-1 to 1)."),
    Column("kind", str, "Issue type: the first one that applies, see below."),
    Column("neighbor_vote", str, "The label that most of its nearest neighbors have.", WITH_NEIGHBORS),
    Column("neighbor_agreement", float, "Share of its neighbors with the same label (0 to 1).", WITH_NEIGHBORS),
    Column("loss_mean", float, "Loss of the given label, mean over the training.", WITH_DYNAMICS),
    Column("loss_last", float, "Loss of the given label at the end.", WITH_DYNAMICS),
    Column("forgotten", int, "How often a network lost the label again after learning it.", WITH_DYNAMICS),
    Column("against", str, "The networks (a, b, ...) that predict another class."),
    Column("suggestion", str, "How far the suggestion depends on the given label, see below."),
    Column("reason", str, "The verdict in one sentence."),
    Column("expected_wrong", float, "Expected number of wrong labels in this row and all above it."),
    Column("decided", str, "Earlier `keep`, `accept`, `relabel` or `trusted`; may be empty.", WITH_DECISIONS),
    Column("votes", str, "What annotators said: `cat 2, dog 1`.", WITH_VOTES),
    Column("consensus", str, "The likeliest class by the votes, each annotator weighed by quality.", WITH_VOTES),
    Column("consensus_prob", float, "Its probability by the votes alone (0 to 1).", WITH_VOTES),
    Column("agreement", float, "Share of the votes that are for the consensus (0 to 1).", WITH_VOTES),
)
"""In the order of the table. Columns of rare audits are the last, so that who reads by position is not disturbed."""

OUT_OF_SAMPLE, SET_ASIDE, IN_SAMPLE = "out_of_sample", "set_aside", "in_sample"
ORIGINS = {
    OUT_OF_SAMPLE: "No network learned from this label, or the suggestion comes from neighbors alone.",
    SET_ASIDE: "No network learned from this label in the last epoch.",
    IN_SAMPLE: "The suggestion comes from networks that learned from this label.",
}
"""What the column `suggestion` may hold, and what it means."""

TYPES = {column.name: column.type for column in COLUMNS}


def in_order(table: Mapping[str, Cells]) -> dict[str, Cells]:
    """Return the columns of a table in the order of `COLUMNS`.

    Raises:
        KeyError: a column is not declared, or one that is always present is missing.
    """
    undeclared = [name for name in table if name not in TYPES]
    if undeclared:
        raise KeyError(f"not declared in audit.columns: {', '.join(undeclared)}")
    return {each.name: table[each.name] for each in COLUMNS if each.when == ALWAYS or each.name in table}


def issue_in_words(kind: str) -> str:
    """Return the name of an issue type as people read it: "out of scope"."""
    return kind.replace("_", " ")


def columns_page() -> str:
    """Return the columns, the issue types and the origins as Markdown tables, as they stand in `docs/audit.md`."""
    columns = ([f"`{each.name}`", TYPE_NAMES[each.type], each.meaning, each.when] for each in COLUMNS)
    return "\n".join([
        *_table(["column", "type", "what it holds", "present"], columns), "",
        *_table(["`kind`", "what it means"], ([f"`{name}`", text] for name, text in ISSUE_TYPES.items())), "",
        *_table(["`suggestion`", "what it means"], ([f"`{name}`", text] for name, text in ORIGINS.items())),
    ])  # fmt: skip


def _table(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"
