"""What pydantic knows about the fields of a settings dataclass."""

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
    """Every key `build` takes for a settings dataclass: `epochs`, `pretrain`, `pretrain.epochs`."""
    for name, field in fields_of(cls).items():
        yield prefix + name
        inner = [key for model in models_in(field.annotation) for key in dotted_keys(model, f"{prefix}{name}.")]
        yield from dict.fromkeys(inner)


def fields_of(cls: type) -> dict[str, FieldInfo]:
    """Name -> field of a settings dataclass, in the order written, with types resolved."""
    return cast(dict[str, FieldInfo], cls.__pydantic_fields__)  # type: ignore[attr-defined]


def models_in(annotation: Any) -> list[type]:
    """The settings dataclasses an annotation stands for, through Annotated, `|` and `| None`."""
    if get_origin(annotation) is Annotated:
        return models_in(get_args(annotation)[0])
    if hasattr(annotation, "__pydantic_fields__"):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def model_in(annotation: Any, table: object = None) -> type | None:
    """The settings dataclass that a table is for; None where an annotation stands for none.

    Of several, the first, or where the table has a key `kind` the one of that kind, or the first that has any.
    """
    models = models_in(annotation)
    if len(models) > 1 and isinstance(table, Mapping) and "kind" in table:
        models = sorted(models, key=lambda model: (table["kind"] not in kinds_of(model), not kinds_of(model)))
    return models[0] if models else None


def kinds_of(model: type) -> tuple[Any, ...]:
    """What the field `kind` of a settings dataclass may be; nothing where it has none."""
    field = fields_of(model).get("kind")
    return get_args(field.annotation) if field is not None else ()


@cache
def notes_of(cls: type) -> dict[str, str]:
    """What the source says of each field of a settings dataclass: the docstring below it, or the comment behind it."""
    text = textwrap.dedent(inspect.getsource(cls))
    lines, notes = text.splitlines(), {}
    (body,) = (node.body for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    for node, after in itertools.zip_longest(body, body[1:]):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        said = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :].strip().removeprefix("#")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            said = str(after.value.value)
        notes[node.target.id] = " ".join(said.split())
    return notes


def note_of(cls: type, key: str, table: object = None) -> str:
    """What the source says of a dotted key; nothing where it says nothing. `table` holds the values, if any."""
    name, dot, rest = key.partition(".")
    field = fields_of(cls).get(name)
    if field is None:
        return ""
    below = table.get(name) if isinstance(table, Mapping) else None
    inner = model_in(field.annotation, below)
    return note_of(inner, rest, below) if dot and inner is not None else notes_of(cls).get(name, "")
