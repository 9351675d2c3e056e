"""No network at all: features are the vectors that come in, so that a peer is a linear classifier. Legend: D features.

For vectors that a pretrained network has made already, and for the methods that fit a classifier to such.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT
from scanmix.data.examples import Kind
from scanmix.networks.contract import Encoder, EncoderSettings


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoLayersSettings(EncoderSettings):
    """It has a name and nothing to set."""

    reads: ClassVar[Kind] = "vector"

    kind: Literal["none"]
    """Tells these settings from those of other networks."""

    def build(self, channels: int) -> Encoder:
        """Return the encoder of vectors of `channels` features; it has no weights."""
        return NoLayers(channels)


class NoLayers(Encoder):
    """An encoder that returns its input. Shape: (B, D) -> (B, D)."""

    def __init__(self, inputs: int) -> None:
        """Note the number of features D."""
        super().__init__()
        self.num_features = inputs

    def blocks(self) -> list[nn.Module]:
        """Return no blocks: there are none."""
        return []

    def last_stage(self) -> list[nn.Module]:
        """Return no modules: the heads stand on the vectors."""
        return []

    def forward(self, examples: Tensor) -> Tensor:
        """Return the vectors. Shape: (B, D) -> same."""
        return examples
