"""A small VGG and a small DenseNet, whose mistakes make semantic noise. Shape: B batch, C channels, D features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Vgg(nn.Module):
    """VGG (Simonyan and Zisserman 2015) with batch norm: two 3x3 convolutions, then halving. (B, C, H, W) -> (B, D)."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        """Stack a stage for each width."""
        super().__init__()
        self.num_features = widths[-1]
        layers: list[nn.Module] = []
        for width in widths:
            for inputs in (channels, width):
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return features, averaged over what is left of the image."""
        maps: Tensor = self.layers(images)
        return maps.mean((2, 3))


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, put beside what came in. Shape: (B, C, H, W) -> (B, C + growth, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        """Add `growth` maps."""
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return old and new maps."""
        return torch.cat([maps, self.conv(F.relu(self.norm(maps)))], 1)


class DenseNet(nn.Module):
    """DenseNet (Huang et al. 2017): dense stages with halving transitions between. (B, C, H, W) -> (B, D)."""

    def __init__(self, channels: int, growth: int, stages: Sequence[int]) -> None:
        """Stack so many dense layers in each stage."""
        super().__init__()
        width = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for number, depth in enumerate(stages):
            if number > 0:
                layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
                width //= 2
            for _ in range(depth):
                layers.append(DenseLayer(width, growth))
                width += growth
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        """Return features, averaged over what is left of the image."""
        maps: Tensor = self.layers(images)
        return maps.mean((2, 3))
