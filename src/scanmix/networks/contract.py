"""What every network offers: an encoder, and the settings that build it.

A new network is one file with these two classes, and its settings are named in `networks/encoders.py`.
Legend: B batch, C channels, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor, nn

from scanmix.data.examples import Kind


class Encoder(nn.Module, ABC):
    """A network from examples to features. Shape: images (B, C, H, W) or vectors (B, C) -> (B, D)."""

    num_features: int
    """D, the width of what `forward` returns."""
    resting: bool = False
    """Whether its weights and running statistics stay as they are while heads are trained."""

    def rest(self, resting: bool) -> None:
        """Rest, or be trained again: while it rests it takes no gradient, and `train` leaves it in eval mode."""
        self.resting = resting
        self.requires_grad_(not resting)

    def train(self, mode: bool = True) -> Self:
        """Set train mode, or eval mode; an encoder at rest is in eval mode, where running statistics stay."""
        return super().train(mode and not self.resting)

    @abstractmethod
    def forward(self, examples: Tensor) -> Tensor:
        """Return the features that heads stand on. Shape: (B, C, ...) -> (B, D)."""

    @abstractmethod
    def last_stage(self) -> list[nn.Module]:
        """Return the modules nearest to the heads, which PES trains anew with the heads."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks in their order, whose maps RoG reads; none where a network has no such blocks."""


class EncoderSettings(ABC):
    """Settings of one kind of network: the subclasses are frozen pydantic dataclasses.

    A field `kind: Literal[NAME]` is what a table of settings names them by; for each kind of example, the default
    network has none.
    """

    reads: ClassVar[Kind]
    """The kind of example that the network takes."""

    @abstractmethod
    def build(self, channels: int) -> Encoder:
        """Return an encoder with fresh weights, of images with so many channels or vectors with so many features."""

    def check(self) -> None:
        """Refuse a network that cannot be built here, before anything of a run is written.

        Raises:
            UserError: a package is missing, or there is no such network.
        """
        return

    def build_first(self, channels: int) -> Encoder:
        """Return an encoder as training begins with it; a network that can start from given weights loads them here."""
        return self.build(channels)

    def untrained(self) -> Self:
        """Return settings of the same network that ask for no given weights, for when others are loaded anyway."""
        return self

    def starts_trained(self) -> bool:
        """Return whether `build_first` loads weights that have seen pictures: its features then tell them apart."""
        return False

    def resting_epochs(self) -> int:
        """Return how many epochs of a run its encoder rests, at the beginning."""
        return 0

    def share_of_rate(self) -> float:
        """Return the factor of a method's learning rates for the encoder."""
        return 1.0
