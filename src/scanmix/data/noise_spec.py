"""Noise as written on the command line, such as `symmetric:0.8` or `openset:fashion-mnist:0.4`, parsed."""

from __future__ import annotations

from typing import Literal, get_args

import pydantic.dataclasses

from scanmix.config import STRICT, UserError

SEMANTIC_NETWORKS = ("vgg", "densenet", "resnet", "densenet100", "resnet34")
"""Networks whose mistakes can become labels, the last two as in Lee et al.; `scanmix.semantic_noise` has them."""
NoiseKind = Literal[
    "none", "symmetric", "symmetric-exclusive", "asymmetric", "instance", "file", "openset", "semantic"
]  # fmt: skip
FORMS = (
    "none, symmetric:RATE, symmetric-exclusive:RATE, asymmetric:RATE, instance:RATE, openset:DATA:RATE, "
    f"semantic:NETWORK:RATE (NETWORK: {', '.join(SEMANTIC_NETWORKS)}) or file:PATH"
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
    if kind == "semantic" and middle not in SEMANTIC_NETWORKS:
        raise UserError(f"noise {text!r} names no network that labels; known: {', '.join(SEMANTIC_NETWORKS)}.")
    return NoiseSpec(
        kind=kind,  # type: ignore[arg-type]  # narrowed by the test above
        rate=_rate(text, rate),
        path=middle if kind == "openset" else None,
        network=middle if kind == "semantic" else None,
    )


def _rate(text: str, rate: str) -> float:
    try:
        number = float(rate)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise UserError(f"noise {text!r} needs a rate between 0 and 1, for instance 0.4.")
    return number
