"""Convert frozen settings dataclasses to and from tables, with strict types; an error lists all problems."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from scanmix.config.arguments import LARGEST
from scanmix.config.errors import UserError, in_short
from scanmix.config.fields import fields_of, model_in
from scanmix.config.problems import explain
from scanmix.config.tables import DEEPEST, Table, merge

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
"""Config of every settings and method dataclass: `@dataclass(frozen=True, kw_only=True, config=STRICT)`."""

Count = Annotated[int, Field(ge=1)]
Batch = Annotated[int, Field(ge=2)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fidelity = Literal["paper", "released"]
"""Whether a method follows its paper or, where the two differ, its published code; each field says how they differ."""

AnyModel = TypeVar("AnyModel")


def build(cls: type[AnyModel], values: Mapping[str, Any], where: str, prefix: str = "") -> AnyModel:
    """Make a settings dataclass from a nested table; fields that are not in the table keep their defaults.

    The table of a nested dataclass overrides the default that its parent gives it, not the defaults of its class.
    Types are strict as in TOML: `true` and `"3"` are not numbers, but `3` is accepted for a float.

    Args:
        cls: a pydantic dataclass with config `STRICT`.
        values: nested table, as from a recipe or the command line.
        where: where the values came from, for the error ("recipe digits/any/scanmix").
        prefix: put in front of every key in an error ("settings.").

    Raises:
        UserError: one error that lists every problem.
    """
    try:
        plain = _plain(values)
    except RecursionError:
        raise UserError(f"{where}: tables or lists are nested too deeply") from None
    if not isinstance(plain, dict):
        place = f"{prefix.removesuffix('.')} = " if prefix else ""
        raise UserError(f"{where}: {place}{in_short(values)}: a table of settings is expected")
    table = _with_defaults(cls, plain)
    problems = list(_not_json(table, prefix))
    infinite = [] if problems else list(_infinite(table, prefix))
    try:
        if not problems:
            found = TypeAdapter(cls).validate_json(json.dumps(table), strict=True)
            if not infinite:
                return found
    except ValidationError as error:
        problems = [explain(cls, detail, prefix, table) for detail in error.errors(include_url=False)]
    named = {problem.partition(" = ")[0] for problem in problems}
    problems += [f"{key} = {value}: a finite number is expected" for key, value in infinite if key not in named]
    if len(problems) == 1:
        raise UserError(f"{where}: {problems[0]}")
    raise UserError("\n  ".join([f"{where}: {len(problems)} problems", *problems]))


def dump(instance: object) -> Table:
    """Return a settings dataclass as a nested table for TOML or JSON; `build` makes an equal instance of it.

    TOML cannot store None, so such keys are left out; `build` restores them if None is the default.

    Raises:
        UserError: a field is None although its default is not.
    """
    table: Table = {}
    for name, field in fields_of(type(instance)).items():
        value = getattr(instance, name)
        if value is not None:
            table[name] = _plain(value)
        elif field.get_default(call_default_factory=True) is not None:
            raise UserError(f"{type(instance).__name__}.{name} cannot be None: TOML has no word for it; leave it out")
    return table


def defaults(cls: type) -> Table:
    """Return the defaults of a settings dataclass as a nested table, without required fields and None."""
    known = {name: field for name, field in fields_of(cls).items() if not field.is_required()}
    values = {name: field.get_default(call_default_factory=True) for name, field in known.items()}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _with_defaults(cls: type, values: Table) -> Table:
    full = dict(values)
    for name, field in fields_of(cls).items():
        inner = model_in(field.annotation, values.get(name))
        if inner is None or not isinstance(values.get(name), dict):
            continue
        default = field.get_default(call_default_factory=True)
        below = dump(default) if type(default) is inner else {}
        full[name] = _with_defaults(inner, merge(below, values[name]))
    return full


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value in the types of JSON and TOML.

    Raises:
        RecursionError: it is nested deeper than `DEEPEST`, or contains itself.
    """
    if depth > DEEPEST:
        raise RecursionError
    if hasattr(type(value), "__pydantic_fields__"):
        return dump(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, Enum):
        return _plain(value.value, depth + 1)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(getattr(value, "tolist", None)):  # numbers and arrays of NumPy, tensors
        return _plain(value.tolist(), depth + 1)
    return str(value)  # a path


def _not_json(table: Table, prefix: str) -> Iterator[str]:
    """Yield problems of values that JSON cannot store, whatever the type of the setting."""
    for key, value in _leaves(table, prefix):
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            yield f"{key} = {in_short(value)}: a number of at most {LARGEST} is expected"
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            yield f"{key} = {in_short(value)}: a text in UTF-8 is expected"


def _infinite(table: Table, prefix: str) -> Iterator[tuple[str, float]]:
    """Yield keys with infinite numbers or NaN, which bounds alone may not refuse."""
    return (
        (key, value) for key, value in _leaves(table, prefix) if isinstance(value, float) and not math.isfinite(value)
    )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each value that is neither a table nor a list, with its dotted key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}{name}.")
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key.removesuffix("."), value
