"""JSON files that carry a SHA-256 of their content: damage and changes by hand are noticed when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from scanmix.files.atomic import write_text
from scanmix.files.errors import reading

AnyModel = TypeVar("AnyModel")
SEAL = "sha256"
MOST_SHOWN = 60
"""Letters of what was found in place of what was expected."""


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object and, as its key `sha256`, the hash of all else.

    Raises:
        CannotWrite: as `atomic_write`.
    """
    write_text(path, json.dumps({**content, SEAL: _hash(_canonical(content))}, indent=indent) + "\n")


def read_json(path: Path, model: type[AnyModel], fix: str = "") -> AnyModel:
    """Read a JSON object into a pydantic dataclass or another type that pydantic knows.

    Args:
        path: the file.
        model: what it must hold.
        fix: what to do about a damaged one.

    Raises:
        UserError: it cannot be read, does not hold what `model` says, or is not as it was written.
    """
    with reading(path, fix):
        return checked(model, _canonical(parse_json(path.read_text(encoding="utf-8"))))


def parse_json(text: str) -> Any:
    """Return what `write_json` wrote, without the hash, which must fit where there is one; in a block of `reading`.

    Raises:
        ValueError, RecursionError: it is damaged.
    """
    content = json.loads(text)
    seal = content.pop(SEAL, None) if isinstance(content, dict) else None
    if seal not in (None, _hash(_canonical(content))):
        raise ValueError("its checksum is another than when it was written")
    return content


def checked(model: type[AnyModel], text: str) -> AnyModel:
    """Return what a JSON text holds as a `model`, types strict.

    Raises:
        ValueError: it holds something else; says in a few words where.
    """
    try:
        return pydantic.TypeAdapter(model).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        found = repr(first["input"])
        wrong = first["msg"] + (f", not {found}" if len(found) < MOST_SHOWN else "")
        raise ValueError(f"{place}: {wrong}" if place else wrong) from None


def _canonical(content: Any) -> str:
    """The same text for the same content, whatever the order of its keys."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
