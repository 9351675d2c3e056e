"""JSON files with a SHA-256 of their content, so that damage and changes by hand are noticed when they are read."""

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
"""Longest wrong value, in characters, that an error shows."""


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object atomically, with the hash of all other keys as its key `sha256`.

    Raises:
        CannotWrite: as `write_text`.
    """
    write_text(path, json.dumps({**content, SEAL: _hash(_canonical(content))}, indent=indent) + "\n")


def read_json(path: Path, model: type[AnyModel], fix: str = "") -> AnyModel:
    """Read a JSON object into a pydantic dataclass or another type that pydantic knows.

    Args:
        path: the file.
        model: the type that the content must have.
        fix: what to do about a damaged file, for the error.

    Raises:
        UserError: the file cannot be read, its content is not of the type `model`, or its checksum is wrong.
    """
    with reading(path, fix):
        return checked(model, _canonical(parse_json(path.read_text(encoding="utf-8"))))


def parse_json(text: str) -> Any:
    """Return the content that `write_json` wrote, without the hash. Call it in a block of `reading`.

    A text without a hash, from an earlier version, is accepted.

    Raises:
        ValueError: the text is not JSON, or its checksum is wrong.
        RecursionError: the text is nested too deeply.
    """
    content = json.loads(text)
    seal = content.pop(SEAL, None) if isinstance(content, dict) else None
    if seal not in (None, _hash(_canonical(content))):
        raise ValueError("its checksum is another than when it was written")
    return content


def checked(model: type[AnyModel], text: str) -> AnyModel:
    """Parse a JSON text as a `model`, with strict types.

    Raises:
        ValueError: the content is not of that type; says where and why in a few words.
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
    """Return a text of the content that does not depend on the order of keys."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
