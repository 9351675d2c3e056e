"""Views of feature vectors: standardized, then noise is added and some features are set to their mean.

A vector is stored as an image of one pixel with D channels, so that code for images serves vectors too. Its views are
rows of D numbers. Legend: N examples, B batch, D features, C channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.config import STRICT, UserError
from scanmix.data.views.sampling import View, draw_by_part

Share = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FeatureViewSettings:
    """Settings of the views of vectors; noise is in standard deviations of each feature. The values are our choice."""

    mean: tuple[float, ...] | None = None
    """Mean of each feature; by default measured on the training vectors."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each feature; by default measured on the training vectors."""
    weak_noise: Amount = 0.1
    """Weak view: standard deviation of the Gaussian noise."""
    weak_dropout: Share = 0.1
    """Weak view: share of features set to their mean."""
    strong_noise: Amount = 0.3
    """Strong and contrastive view: standard deviation of the Gaussian noise."""
    strong_dropout: Share = 0.3
    """Strong and contrastive view: share of features set to their mean."""


class FeatureViews:
    """The four views of a batch of vectors: eval, weak, strong and contrastive, as `Views` has for images."""

    dtype: ClassVar[torch.dtype] = torch.float32
    """Type of the vectors that the views are made of."""

    def __init__(self, settings: FeatureViewSettings, *, mean: Tensor, std: Tensor) -> None:
        """Store the settings and the measured statistics. Shape: mean (D,), std (D,)."""
        self.settings = settings
        self.mean, self.std = mean, std

    def eval_view(self, vectors: Tensor) -> Tensor:
        """Standardize only. Shape: (B, D, 1, 1) -> (B, D)."""
        return (vectors.flatten(1) - self.mean) / self.std

    def weak(self, images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
        """Add a little noise and set a few features to their mean. Shape: (B, D, 1, 1) -> (B, D)."""
        s = self.settings
        return disturb(self.eval_view(images), s.weak_noise, s.weak_dropout, generator, parts)

    def strong(self, images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
        """Add more noise and set more features to their mean. Shape: (B, D, 1, 1) -> (B, D)."""
        s = self.settings
        return disturb(self.eval_view(images), s.strong_noise, s.strong_dropout, generator, parts)

    def contrastive(self, vectors: Tensor, generator: Generator) -> Tensor:
        """Return the strong view. Shape: (B, D, 1, 1) -> (B, D)."""
        return self.strong(vectors, generator)

    def random_view(self, kind: Literal["weak", "strong"]) -> View:
        """Return the weak or the strong view, for settings that choose one."""
        return self.weak if kind == "weak" else self.strong

    def contrastive_settings(self) -> dict[str, Any]:
        """Return all settings that a contrastive view depends on, for cache keys; they include those of eval views."""
        return self.strong_settings()

    def strong_settings(self) -> dict[str, Any]:
        """Return all settings that a strong view depends on, for cache keys."""
        s = self.measured()
        return {"mean": s.mean, "std": s.std, "strong_noise": s.strong_noise, "strong_dropout": s.strong_dropout}

    def measured(self) -> FeatureViewSettings:
        """Return the settings with the measured mean and standard deviation filled in."""
        return dataclasses.replace(self.settings, mean=tuple(self.mean.tolist()), std=tuple(self.std.tolist()))


def given_statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of settings: one value a channel, or one for all. Shape: -> (C,) or (1,) each.

    Raises:
        UserError: the number of values is another, a value is not finite, or a deviation is not above 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(f"views.{name} has {len(values)} numbers; there must be {channels}, or one for all")
        if not all(math.isfinite(value) for value in values):
            raise UserError(f"views.{name} = {list(values)}: finite numbers are expected")
    if min(std) <= 0:
        raise UserError(f"views.std = {list(std)}: numbers above 0 are expected")
    return torch.tensor(mean), torch.tensor(std)


def make_feature_views(
    settings: FeatureViewSettings, vectors: Tensor, device: torch.device | None = None
) -> FeatureViews:
    """Make views of training vectors; statistics that `settings` does not give are measured. Shape: (N, D, 1, 1)."""
    if settings.mean is None or settings.std is None:
        mean, std = feature_statistics(vectors.flatten(1))
    else:
        mean, std = given_statistics(settings.mean, settings.std, vectors.shape[1])
    device = vectors.device if device is None else device
    return FeatureViews(settings, mean=mean.to(device), std=std.to(device))


def feature_statistics(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (1 for a constant) of each feature. Shape: (N, D) -> (D,), (D,)."""
    mean, std = feature_spread(vectors)
    return mean, torch.where(std == 0, 1.0, std)


def feature_spread(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (0 for a constant) of each feature, computed in float64 by chunks.

    Shape: (N, D) -> (D,), (D,).
    """
    mean = torch.stack([chunk.double().sum(0) for chunk in vectors.split(4096)]).sum(0) / len(vectors)
    spread = torch.stack([(chunk.double() - mean).square().sum(0) for chunk in vectors.split(4096)]).sum(0)
    std = (spread / len(vectors)).sqrt()
    constant = std <= 1e-6 * mean.abs().clamp(min=1e-30)  # a deviation this small comes from rounding
    return mean.float(), torch.where(constant, 0.0, std).float()


def disturb(
    rows: Tensor, noise: float, dropout: float, generator: Generator, parts: Sequence[int] | None = None
) -> Tensor:  # fmt: skip
    """Add Gaussian noise, then set each value to 0 with a probability. Shape: (B, D) -> same.

    Args:
        rows: standardized vectors.
        noise: standard deviation of the noise.
        dropout: probability of 0.
        generator: source of all draws.
        parts: as in `draw_by_part`.
    """

    def draw(count: int) -> tuple[Tensor, Tensor]:
        size, device = (count, rows.shape[1]), generator.device
        added = torch.randn(size, generator=generator, device=device)
        return added, torch.rand(size, generator=generator, device=device) >= dropout

    added, kept = (drawn.to(rows.device, non_blocking=True) for drawn in draw_by_part(draw, parts, len(rows)))
    return (rows + noise * added) * kept
