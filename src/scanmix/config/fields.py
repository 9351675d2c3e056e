"""Fields of settings dataclasses: their keys, types and notes in the source."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic.fields import FieldInfo


def dotted_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Yield every key that `build` accepts for a settings dataclass: `epochs`, `pretrain`, `pretrain.epochs`."""
    for name, field in fields_of(cls).items():
        yield prefix + name
        inner = [key for model in models_in(field.annotation) for key in dotted_keys(model, f"{prefix}{name}.")]
        yield from dict.fromkeys(inner)


def fields_of(cls: type) -> dict[str, FieldInfo]:
    """Return the fields of a settings dataclass by name, in the order of the source, with types resolved."""
    return cast(dict[str, FieldInfo], cls.__pydantic_fields__)  # type: ignore[attr-defined]


def models_in(annotation: Any) -> list[type]:
    """Return the settings dataclasses in an annotation, also inside Annotated, `|` and `| None`."""
    if get_origin(annotation) is Annotated:
        return models_in(get_args(annotation)[0])
    if hasattr(annotation, "__pydantic_fields__"):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def model_in(annotation: Any, table: object = None) -> type | None:
    """Return the settings dataclass of an annotation that a table is for; None if the annotation has none.

    If there are several, it is the first; or, if the table has a key `kind`, the one of that kind, else the first that
    has kinds.
    """
    models = models_in(annotation)
    if len(models) > 1 and isinstance(table, Mapping) and "kind" in table:
        models = sorted(models, key=lambda model: (table["kind"] not in kinds_of(model), not kinds_of(model)))
    return models[0] if models else None


def kinds_of(model: type) -> tuple[Any, ...]:
    """Return the allowed values of the field `kind` of a settings dataclass; none if it has no such field."""
    field = fields_of(model).get("kind")
    return get_args(field.annotation) if field is not None else ()


@cache
def notes_of(cls: type) -> dict[str, str]:
    """Return the note of each field of a settings dataclass: the docstring below it, or the comment behind it."""
    text = textwrap.dedent(inspect.getsource(cls))
    lines, notes = text.splitlines(), {}
    (body,) = (node.body for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    for node, after in itertools.zip_longest(body, body[1:]):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        note = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :].strip().removeprefix("#")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            note = str(after.value.value)
        notes[node.target.id] = " ".join(note.split())
    return notes


def note_of(cls: type, key: str, table: object = None) -> str:
    """Return the note of a dotted key, or "". The values in `table` choose the kind of nested settings."""
    name, dot, rest = key.partition(".")
    field = fields_of(cls).get(name)
    if field is None:
        return ""
    below = table.get(name) if isinstance(table, Mapping) else None
    inner = model_in(field.annotation, below)
    return note_of(inner, rest, below) if dot and inner is not None else notes_of(cls).get(name, "")
