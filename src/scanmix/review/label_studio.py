"""Labels to decide as tasks of Label Studio, and its export back: <https://labelstud.io/guide/task_format>.

A suggestion is a prediction of the task. People see it filled in, and it counts only once they submit the task.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pydantic

from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.files import reading, write_text
from scanmix.files.sealed import checked
from scanmix.review.answers import LEAVE_OUT, Answer

ID = "scanmix_id"
CLASS, USE = "label", "scanmix_use"
"""Names of the two controls: the class, and whether to leave the image out."""
IGNORE_OTHERS = pydantic.ConfigDict(extra="ignore")
"""A task has many more keys, and gets new ones with every version of Label Studio."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=IGNORE_OTHERS)
class Value:
    """What was chosen; other controls than choices have other keys."""

    choices: list[str] = pydantic.Field(default_factory=list)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=IGNORE_OTHERS)
class Result:
    """What one control of an annotation says."""

    value: Value
    from_name: str = ""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=IGNORE_OTHERS)
class Annotation:
    """What one person submitted, or skipped."""

    result: list[Result]
    was_cancelled: bool = False


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=IGNORE_OTHERS)
class Task:
    """A task of an export."""

    data: dict[str, Any]
    annotations: list[Annotation]


def write(path: Path, audit: Audit, rows: Sequence[int], addresses: Sequence[str], version: str) -> None:
    """Write rows of an audit as tasks, in their order.

    Args:
        path: the file.
        audit: the audit.
        rows: R rows of it.
        addresses: for each of them, the address of the picture for Label Studio.
        version: `model_version` of the predictions.

    Raises:
        CannotWrite: as `write_text`.
    """
    tasks = [
        {
            "data": {
                ID: audit["id"][row],
                "image": address,
                "given": audit["given"][row],
                "why": f"given: {audit['given'][row]} – {audit['reason'][row]}",
                "p_clean": round(float(audit["p_clean"][row]), 4),
            },
            "predictions": [
                {
                    "model_version": version,
                    "score": round(float(audit["confidence"][row]), 4),
                    "result": [
                        {
                            "from_name": CLASS,
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [audit["suggested"][row]]},
                        }
                    ],
                }
            ],
        }
        for row, address in zip(rows, addresses, strict=True)
    ]
    write_text(path, json.dumps(tasks, indent=1) + "\n")


def write_labels(path: Path, class_names: Sequence[str]) -> None:
    """Write the labeling configuration of the project: the picture, why it is doubted, and the classes.

    Raises:
        CannotWrite: as `write_text`.
    """
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in class_names)
    write_text(
        path,
        '<View className="scanmix">\n  <Header value="$why"/>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="{CLASS}" toName="image" choice="single" showInline="true">\n{choices}  </Choices>\n'
        f'  <Choices name="{USE}" toName="image" choice="single">\n    <Choice value="{LEAVE_OUT}"/>\n  </Choices>\n'
        "</View>\n",
    )


def read(path: Path) -> Iterator[Answer]:
    """Return the answers in an export in the format JSON. A skipped task means unsure.

    Raises:
        UserError: the file cannot be read or is no such export, a task has no id, or a person chose two classes.
    """
    with reading(path, "in Label Studio, export the project in the format JSON (not JSON-MIN)"):
        tasks = checked(list[Task], path.read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, start=1):
        where = f"task {number}"
        if not isinstance(task.data.get(ID), str):
            raise UserError(f"{where} of {path} has no {ID}: it was not made by `scanmix review --to`; leave it out")
        for annotation in task.annotations:
            answer = _answer(task.data[ID], annotation, f"{where} of {path}")
            if answer is not None:
                yield answer


def _answer(name: str, annotation: Annotation, where: str) -> Answer | None:
    """Return what an annotation says; None if nothing was chosen."""
    if annotation.was_cancelled:
        return Answer(where, name, "unsure")
    if any(result.from_name == USE and result.value.choices for result in annotation.result):
        return Answer(where, name, "exclude")  # the class may still be filled in from the suggestion
    chosen = list(dict.fromkeys(choice for result in annotation.result for choice in result.value.choices))
    if len(chosen) > 1:
        raise UserError(f"{where} has two classes for {name!r}, {chosen[0]!r} and {chosen[1]!r}; keep one there")
    return Answer(where, name, "relabel", chosen[0]) if chosen else None
