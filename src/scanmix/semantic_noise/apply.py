"""Noise as written on the command line, such as `symmetric:0.8` or `semantic:resnet:0.35`, added to examples."""

from __future__ import annotations

import hashlib
import json
import warnings

from scanmix.config import UserError
from scanmix.data.examples import JSON, Examples
from scanmix.data.noise import add_noise, load_noise, parse_noise, save_noise
from scanmix.data.readers import load
from scanmix.data.readers.open_set import add_open_set
from scanmix.data.store import default_cache
from scanmix.files import writing
from scanmix.progress import Bar, Quiet
from scanmix.semantic_noise.labels import semantic_labels


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
