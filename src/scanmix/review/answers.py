"""What people decided in another labeling tool: one answer an image, taken over as a decision of the review."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scanmix.audit import Audit
from scanmix.config import UserError, in_short
from scanmix.review.decisions import CHOICES, Decisions, State

LEAVE_OUT = "leave the image out"
"""What stands beside the classes in other tools, for the decision `exclude`."""
SHOWN = 20
"""Most classes that an error lists."""


class Answer(NamedTuple):
    """An answer in a file of another tool."""

    where: str
    """Its place, for errors: "task 3 of export.json"."""
    image: str
    """The id of the image, maybe below other folders: "photos/cat/1.png" is "cat/1.png" too."""
    choice: str
    """`relabel`, which may turn out as `keep` or `accept`; `exclude` or `unsure`."""
    label: str = ""
    """The class of `relabel`."""


class Taken(NamedTuple):
    """How many answers were taken over."""

    new: int
    """Labels that were undecided."""
    changed: int
    """Labels that were decided otherwise."""
    same: int
    """Labels that were decided like that already; they are not logged again."""


def take(decisions: Decisions, audit: Audit, answers: Iterable[Answer]) -> Taken:
    """Take answers over as one change of the decisions, after all of them have been checked.

    Several equal answers for one image are one, and one of somebody who knows beats an `unsure`.

    Args:
        decisions: the decisions of the run.
        audit: the audit of the run.
        answers: the answers, of which every image and class must be known.

    Raises:
        UserError: an image or a class is unknown, or an image has two answers; nothing has changed.
        CannotWrite, OnlyInLog: as `Decisions.decide`.
    """
    row_of = {name: row for row, name in enumerate(audit["id"].tolist())}
    number = {name: label for label, name in enumerate(audit.class_names)}
    chosen: dict[int, Answer] = {}
    for answer in answers:
        row = _row(answer, row_of)
        if answer.choice == "relabel" and answer.label not in number:
            names = ", ".join(audit.class_names[:SHOWN]) + (" ..." if len(number) > SHOWN else "")
            raise UserError(
                f"{answer.where} gives {answer.image!r} the class {in_short(answer.label)}, which is none of this run "
                f"({names}); correct it there"
            )
        before = chosen.get(row)
        if before is None or before.choice == "unsure":
            chosen[row] = answer
        elif answer.choice != "unsure" and before[2:] != answer[2:]:
            raise UserError(
                f"{answer.where} has two answers for {answer.image!r}, {_words(before)} and {_words(answer)}; "
                "keep one there"
            )
    wishes = [(row, answer.choice, number.get(answer.label)) for row, answer in chosen.items()]
    now = {row: State(int(decisions.codes[row]), int(decisions.labels[row])) for row in chosen}
    other = [wish for wish in wishes if decisions.meant(*wish) != now[wish[0]]]
    if other:
        decisions.decide_each(other)
    changed = sum(bool(CHOICES[now[row].code]) for row, _, _ in other)
    return Taken(len(other) - changed, changed, len(wishes) - len(other))


def _row(answer: Answer, row_of: Mapping[str, int]) -> int:
    """Return the row of an answer: that of its name, or of as much of its end as is an id."""
    name = answer.image
    while name not in row_of:
        _, slash, name = name.partition("/")
        if not slash:
            raise UserError(
                f"{answer.where} has the image {in_short(answer.image)}, which is not in this run; "
                "take the export of the tasks of this run"
            )
    return row_of[name]


def _words(answer: Answer) -> str:
    return repr(answer.label) if answer.choice == "relabel" else answer.choice
