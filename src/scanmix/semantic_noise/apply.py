"""Noise as written on the command line, such as `symmetric:0.8` or `openset:fashion-mnist:0.4`: parsed and applied."""

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
    """A noise as written on the command line, parsed."""

    kind: NoiseKind
    rate: float | None = None
    """Share (0..1) of labels that the noise selects."""
    path: str | None = None
    """The noise file; or the data set that open-set images come from."""
    network: str | None = None
    """The network whose mistakes become labels."""


def parse_noise(text: str) -> NoiseSpec:
    """Parse a noise in one of the `FORMS`.

    Raises:
        UserError: if the text has none of these forms or the rate is not a number in 0..1.
    """
    kind, _, value = text.strip().partition(":")
    if kind == "none" and not value:
        return NoiseSpec(kind="none")
    if kind == "file" and value:
        return NoiseSpec(kind="file", path=value)
    middle, colon, rate = value.rpartition(":")
    if kind not in get_args(NoiseKind) or kind in ("none", "file") or bool(colon) != (kind in ("openset", "semantic")):
        raise UserError(f"noise {text!r} is not one of: {FORMS}.")
    if kind == "semantic" and middle not in LABELLERS:
        raise UserError(f"noise {text!r} names no network that labels; known: {', '.join(LABELLERS)}.")
    return NoiseSpec(
        kind=kind,  # type: ignore[arg-type]  # narrowed by the test above
        rate=_rate(text, rate),
        path=middle if kind == "openset" else None,
        network=middle if kind == "semantic" else None,
    )


def apply_noise(examples: Examples, spec: str, seed: int = 0, bar: Bar | None = None) -> Examples:
    """Add the noise that a command line names (see `parse_noise`); "none" returns the examples as they are.

    Semantic noise is made once. Its labels are stored in the cache, and the source of the examples names that file.

    Raises:
        UserError: as `parse_noise`, or the noise does not fit the examples.
    """
    noise = parse_noise(spec)
    if noise.kind == "none":
        return examples
    if noise.kind == "openset" and noise.path is not None and noise.rate is not None:
        return with_open_set(examples, noise.path, noise.rate, seed)
    if noise.kind == "semantic" and noise.network is not None and noise.rate is not None:
        return _semantic(examples, noise.network, noise.rate, seed, bar or Quiet())
    return add_noise(examples, noise.kind, noise.rate, seed, path=noise.path)


def with_open_set(examples: Examples, source: str, rate: float, seed: int) -> Examples:
    """Replace a share of the images by training images of another data set, which `scanmix.load` reads.

    Raises:
        UserError: as `load` and `add_open_set`.
    """
    outside, _ = load(source)
    step: JSON = {"open_set": {"foreign": dict(outside.source or {}), "rate": rate, "seed": seed}}
    return add_open_set(examples, outside, rate, seed, step)


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
