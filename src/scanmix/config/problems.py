"""Problems of settings in words: the dotted key, the value, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from scanmix.config.errors import in_short, nearest, plain_name
from scanmix.config.fields import dotted_keys, fields_of, kinds_of, model_in, models_in
from scanmix.config.tables import Table


def explain(cls: type, detail: ErrorDetails, prefix: str, table: Table) -> str:
    """Return one error of pydantic on one line: `momentum = 3.0: a number at most 1 is expected`.

    Args:
        cls: the settings dataclass.
        detail: the error.
        prefix: put in front of every key.
        table: the values, by which the kind of nested settings is chosen.
    """
    location, field = _found(cls, detail["loc"], table)
    key = ".".join(str(part) for part in location)
    if detail["type"] == "unexpected_keyword_argument":
        _, parent = _found(cls, location[:-1], table)
        other = _kind_with(str(location[-1]), parent)
        hint = f"{prefix}{key.rpartition('.')[0]}.kind = {other!r} has one" if other else _suggest(cls, key, prefix)
        return f"unknown key {in_short(prefix + key)}; {hint}"
    message = detail["msg"].removeprefix("Value error, ")
    if not key:
        return message  # from a check of the whole dataclass
    allowed = None if field is None or detail["type"] == "value_error" else _allowed(field)
    if detail["type"].startswith("missing"):
        return f"{prefix}{key} is missing: {allowed or 'a value'} is needed"
    return f"{prefix}{key} = {in_short(detail['input'])}: " + (f"{allowed} is expected" if allowed else message)


def _suggest(cls: type, key: str, prefix: str) -> str:
    """Suggest keys for an unknown one: with the same last word, else a similar key, else a similar last word."""
    valid = list(dotted_keys(cls))
    word = plain_name(key).rpartition(".")[2]
    found = [other for other in valid if other.rpartition(".")[2] == word]
    if not found:
        by_word = {other.rpartition(".")[2]: other for other in reversed(valid)}
        like = difflib.get_close_matches(word, by_word, n=1, cutoff=0.6)
        guess = nearest(key, valid) or (by_word[like[0]] if like else None)
        found = [guess] if guess else []
    if found:
        return "did you mean " + " or ".join(repr(prefix + other) for other in found[:3]) + "?"
    return "known keys: " + ", ".join(prefix + other for other in valid)


def _found(cls: type, location: tuple[int | str, ...], table: object) -> tuple[tuple[int | str, ...], FieldInfo | None]:
    """Return the key and the field of a location; pydantic adds a tag if a table can be of several kinds."""
    field = fields_of(cls).get(str(location[0])) if location else None
    if field is None or len(location) == 1:
        return location, field
    below = table.get(str(location[0])) if isinstance(table, Mapping) else None
    inner = model_in(field.annotation, below)
    if inner is None:
        return location, None
    rest = location[2:] if len(models_in(field.annotation)) > 1 else location[1:]
    if not rest:
        return location[:1], field
    key, found = _found(inner, rest, below)
    return (location[0], *key), found


def _kind_with(name: str, field: FieldInfo | None) -> str | None:
    """Return the `kind` of the settings that have a field of that name, if a field takes settings of several kinds."""
    models = models_in(field.annotation) if field is not None else []
    for model in models[1:]:
        if name in fields_of(model) and kinds_of(model):
            return str(kinds_of(model)[0])
    return None


_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _allowed(field: FieldInfo) -> str | None:
    """Return what a field accepts: "a number above 0 and at most 1"; None if there are no words for it."""
    annotation, metadata = field.annotation, list(field.metadata)
    options = [part for part in get_args(annotation) if part is not type(None)]
    optional = len(options) == 1 and type(None) in get_args(annotation)
    if optional:
        annotation = options[0]
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata += [part for extra in inner for part in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(annotation))
    if hasattr(annotation, "__pydantic_fields__"):
        return "a table of settings"
    kind = _KINDS.get(annotation) if isinstance(annotation, type) else None
    bounds = [
        f"{words} {getattr(part, name):g}"
        for part in metadata
        for name, words in _BOUNDS.items()
        if getattr(part, name, None) is not None
    ]
    return None if kind is None else " ".join([kind, " and ".join(bounds)]).rstrip()
