"""Nested tables: read from TOML files, merged, and made from `a.b=value` of the command line."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

from scanmix.config.errors import UserError, in_short

Table = dict[str, Any]
DEEPEST = 32
"""Levels of nested tables and lists that are accepted; no setting needs more."""


def read_toml(path: str | Path) -> Table:
    """Read a TOML file.

    Raises:
        UserError: the file is missing, cannot be read, is a pipe or a device, or is not TOML.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a pipe or a device may wait for ever
            raise UserError(f"{path}: cannot be read (a pipe or a device; a file is needed)")
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8, so not TOML") from None
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{path}: not valid TOML: nested too deeply") from None
    except Exception as error:  # numbers, dates and a lack of memory raise other types of errors
        raise UserError(f"{path}: not valid TOML: {' '.join(str(error).split())[:200]}") from None
    if _is_deep(table):
        raise UserError(f"{path}: not valid TOML: nested too deeply")
    return table


def _is_deep(value: object) -> bool:
    """Whether tables and lists are nested deeper than `DEEPEST`, so that recursive functions could fail."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]  # fmt: skip
    return bool(level)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Return `base` overridden by `over`: nested tables are merged key by key, any other value is replaced.

    The arguments are not changed, and the result shares no table with them.
    """
    merged: Table = {key: merge(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Merge as `merge` does, but replace a table by one of another `kind` instead of merging them."""
    return merge(_of_the_same_kind(base, over), over)


def _of_the_same_kind(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    kept: Table = {}
    for key, value in base.items():
        above = over.get(key)
        if not isinstance(value, Mapping) or not isinstance(above, Mapping):
            kept[key] = value
        elif "kind" not in above or above["kind"] == value.get("kind"):
            kept[key] = _of_the_same_kind(value, above)
    return kept


def flatten(table: Mapping[str, Any], prefix: str = "") -> Table:
    """Return a nested table with dotted keys: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat: Table = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def parse_assignment(text: str) -> Table:
    """Turn `a.b=value` from the command line into `{"a": {"b": value}}`.

    The value is read as TOML (`3`, `0.5`, `true`, `[1, 2]`, `"text"`); a value that is not TOML is a text.

    Raises:
        UserError: there is no `=`, or the key is not of letters, digits, `_`, `-` and dots.
    """
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or len(parts) > DEEPEST or not all(re.fullmatch(r"[\w-]+", part) for part in parts):
        raise UserError(f"cannot read {in_short(text)}: write key=value, for example pretrain.learning_rate=0.1")
    table: Table = {parts[-1]: _parse_value(value.strip())}
    for part in reversed(parts[:-1]):
        table = {part: table}
    return table


def _parse_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError, MemoryError):  # not TOML, or a number of thousands of digits
        return text
    value = table.pop("value")
    # There are more keys if the text holds a newline. No setting is a date, but a folder may be named like one.
    return text if table or isinstance(value, date | time) or _is_deep(value) else value
