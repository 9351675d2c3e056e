"""What pydantic knows about the fields of a settings dataclass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
