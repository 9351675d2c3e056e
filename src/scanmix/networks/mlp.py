"""A multilayer perceptron for feature vectors: embeddings of texts, rows of tables.

Legend: B batch, D features in, F features out.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT
from scanmix.data.examples import Kind
from scanmix.networks.contract import Encoder, EncoderSettings

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MlpSettings(EncoderSettings):
    """Number of layers and their widths."""

    reads: ClassVar[Kind] = "vector"

    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] = (256, 256)
    """Width of each layer; the last is the number of features F."""

    def build(self, channels: int) -> Encoder:
        """Return a perceptron with fresh weights on vectors of `channels` features."""
        return Mlp(self, channels)


class Mlp(Encoder):
    """A multilayer perceptron; each layer is linear, batch norm and ReLU. Shape: (B, D) -> (B, F)."""

    def __init__(self, settings: MlpSettings, inputs: int) -> None:
        """Stack the layers on `inputs` features."""
        super().__init__()
        self.num_features = settings.hidden[-1]
        layers: list[nn.Module] = []
        for width in settings.hidden:
            layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers)

    def blocks(self) -> list[nn.Module]:
        """Return no blocks: only the features at the end are looked at."""
        return []

    def last_stage(self) -> list[nn.Module]:
        """Return the last layer with its batch norm and ReLU."""
        return list(self.layers)[-3:]

    def forward(self, examples: Tensor) -> Tensor:
        """Return the outputs of the last layer. Shape: (B, D) -> (B, F)."""
        features: Tensor = self.layers(examples)
        return features
