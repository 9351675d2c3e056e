"""The stored record of where examples came from (`Examples.source`), checked before it is used to load them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, UserError
from scanmix.files import checked


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Load:
    """Arguments of `scanmix.load`."""

    source: str
    root: str | None = None
    labels: str | None = None
    size: int | None = None
    per_class: int | None = None
    seed: int | None = None
    limit_test: int | None = None
    flip: bool | None = None
    least_classes: int | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Noise:
    """Arguments of `scanmix.add_noise`."""

    kind: str
    rate: float | None = None
    seed: int | None = None
    mapping: dict[str, int] | None = None
    path: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OpenSet:
    """Arguments of `add_open_set`; `foreign` is where the open-set images came from."""

    foreign: Origin
    rate: float
    seed: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Corrections:
    """The CSV of corrections, and its hash when it was used."""

    path: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PerClass:
    """Arguments of `Examples.per_class`."""

    count: int
    seed: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Match:
    """Arguments of `match`."""

    class_names: list[str]
    size: tuple[int, int]
    channels: int


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Step:
    """One change of the examples after they were loaded: exactly one field is set."""

    noise: Noise | None = None
    open_set: OpenSet | None = None
    corrections: Corrections | None = None
    per_class: PerClass | None = None
    without_true_labels: Literal[True] | None = None
    match: Match | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Origin:
    """How examples are loaded again: the arguments, which part of the pair, and the changes in order."""

    load: Load
    split: Literal["train", "test"]
    steps: list[Step] = Field(default_factory=list)


def check_origin(source: object, where: str) -> None:
    """Check that `source` is a record that `readers.reload` can follow.

    Args:
        source: the record.
        where: what the error calls it.

    Raises:
        UserError: a step is unknown, or a part of the record is missing or of another type.
    """
    steps = source.get("steps", []) if isinstance(source, Mapping) else []
    for step in steps if isinstance(steps, list | tuple) else []:
        if not isinstance(step, Mapping) or len(step) != 1 or not step.keys() <= STEPS:
            found = sorted(step) if isinstance(step, Mapping) else step
            raise UserError(f"{where} has an unknown step {found}; a newer scanmix wrote it.")
    try:
        checked(Origin, json.dumps(source))
    except (ValueError, TypeError) as error:
        raise UserError(f"{where} does not say how its data was loaded: {error}") from None


STEPS = frozenset(Step.__dataclass_fields__)
