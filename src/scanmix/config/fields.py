"""What pydantic knows about the fields of a settings dataclass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_args

from pydantic.fields import FieldInfo


def dotted_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Every key `build` takes for a settings dataclass: `epochs`, `pretrain`, `pretrain.epochs`."""
    for name, field in fields_of(cls).items():
        yield prefix + name
        inner = model_in(field.annotation)
        if inner is not None:
            yield from dotted_keys(inner, f"{prefix}{name}.")


def fields_of(cls: type) -> dict[str, FieldInfo]:
    """Name -> field of a settings dataclass, in the order written, with types resolved."""
    return cast(dict[str, FieldInfo], cls.__pydantic_fields__)  # type: ignore[attr-defined]


def model_in(annotation: Any) -> type | None:
    """The settings dataclass an annotation stands for, through Annotated and `| None`."""
    models = [part for part in (annotation, *get_args(annotation)) if hasattr(part, "__pydantic_fields__")]
    return models[0] if len(models) == 1 else None
