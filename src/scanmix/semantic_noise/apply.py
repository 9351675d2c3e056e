"""`symmetric:0.8`, `openset:fashion-mnist:0.4` and so on: taken apart, and put on examples."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Literal, get_args

import pydantic.dataclasses

from scanmix.config import STRICT, UserError
from scanmix.data.examples import JSON, Examples
from scanmix.data.noise import add_noise, load_noise, save_noise
from scanmix.data.readers import load
from scanmix.data.readers.open_set import add_open_set
from scanmix.data.store import default_cache
from scanmix.files import writing
from scanmix.progress import Bar, Quiet
from scanmix.semantic_noise.labels import LABELLERS, semantic_labels

NoiseKind = Literal[
    "none", "symmetric", "symmetric-exclusive", "asymmetric", "instance", "file", "openset", "semantic"
]  # fmt: skip
FORMS = (
    "none, symmetric:RATE, symmetric-exclusive:RATE, asymmetric:RATE, instance:RATE, openset:DATA:RATE, "
    f"semantic:NETWORK:RATE (NETWORK: {', '.join(LABELLERS)}) or file:PATH"
)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseSpec:
    """A noise as written on the command line, taken apart."""

    kind: NoiseKind
    rate: float | None = None
    path: str | None = None
    """Of a file; or where foreign images come from."""
    network: str | None = None
    """Whose mistakes the labels are."""


def parse_noise(text: str) -> NoiseSpec:
    """Take apart a noise in one of the `FORMS`.

    Raises:
        UserError: if the text has none of these forms or the rate is not a number in 0..1.
    """
    kind, _, value = text.strip().partition(":")
    if kind == "none" and not value:
        return NoiseSpec(kind="none")
    if kind == "file" and value:
        return NoiseSpec(kind="file", path=value)
    between, colon, rate = value.rpartition(":")
    if kind not in get_args(NoiseKind) or kind in ("none", "file") or bool(colon) != (kind in ("openset", "semantic")):
        raise UserError(f"noise {text!r} is not one of: {FORMS}.")
    if kind == "semantic" and between not in LABELLERS:
        raise UserError(f"noise {text!r} names no network that labels; known: {', '.join(LABELLERS)}.")
    return NoiseSpec(
        kind=kind,  # type: ignore[arg-type]  # narrowed by the test above
        rate=_rate(text, rate),
        path=between if kind == "openset" else None,
        network=between if kind == "semantic" else None,
    )


def apply_noise(examples: Examples, spec: str, seed: int = 0, bar: Bar | None = None) -> Examples:
    """Add the noise a command line names (see `parse_noise`); "none" returns the examples as they are.

    Semantic noise is made once: its labels are kept in the cache, and the examples say that they came from that file.

    Raises:
        UserError: as `parse_noise` and what adds the noise.
    """
    asked = parse_noise(spec)
    if asked.kind == "none":
        return examples
    if asked.kind == "openset" and asked.path is not None and asked.rate is not None:
        return with_open_set(examples, asked.path, asked.rate, seed)
    if asked.kind == "semantic" and asked.network is not None and asked.rate is not None:
        return _semantic(examples, asked.network, asked.rate, seed, bar or Quiet())
    return add_noise(examples, asked.kind, asked.rate, seed, path=asked.path)


def with_open_set(examples: Examples, source: str, rate: float, seed: int) -> Examples:
    """Add open-set noise of the training images of a source that `scanmix.load` knows.

    Raises:
        UserError: as `load` and `add_open_set`.
    """
    foreign, _ = load(source)
    step: JSON = {"open_set": {"foreign": dict(foreign.source or {}), "rate": rate, "seed": seed}}
    return add_open_set(examples, foreign, rate, seed, step)


def _semantic(examples: Examples, network: str, rate: float, seed: int, bar: Bar) -> Examples:
    key = hashlib.sha256(json.dumps([examples.fingerprint(), network, rate, seed]).encode()).hexdigest()[:16]
    path = default_cache() / "noise" / f"semantic-{network}-{rate:g}-{key}.json"
    if path.exists():
        try:
            return load_noise(examples, path)
        except UserError as error:
            warnings.warn(f"{error}; the labels are made again", stacklevel=2)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_noise(semantic_labels(examples, network, rate, seed, bar).put_on(examples), path)
    return load_noise(examples, path)


def _rate(text: str, rate: str) -> float:
    try:
        number = float(rate)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise UserError(f"noise {text!r} needs a rate between 0 and 1, for instance 0.4.")
    return number
