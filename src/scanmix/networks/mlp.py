"""A multilayer perceptron for feature vectors: embeddings of texts, rows of tables.

Shape: B batch, D features in, F features out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MlpSettings:
    """How many layers and how wide."""

    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] = (256, 256)
    """Width of each layer; the last is the number of features F."""


class Mlp(nn.Module):
    """Linear, batch norm and ReLU in each layer. Shape: (B, D) -> (B, F)."""

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
        """Return the last layer and its batch norm."""
        return list(self.layers)[-3:]

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the features that the heads stand on."""
        features: Tensor = self.layers(vectors)
        return features
