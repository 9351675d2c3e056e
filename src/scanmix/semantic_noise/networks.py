"""A VGG and a DenseNet, whose mistakes make semantic noise. Shape: B batch, C channels, D features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Vgg(nn.Module):
    """VGG (Simonyan and Zisserman 2015) with batch norm: stages of two 3x3 convolutions and a max pool.

    Shape: (B, C, H, W) -> (B, D).
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        """Stack the stages; `widths` are their numbers of maps."""
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
        """Return features, averaged over positions. Shape: (B, C, H, W) -> (B, D)."""
        maps: Tensor = self.layers(images)
        return maps.mean((2, 3))


BOTTLENECK = 4
"""Maps after the 1x1 convolution of a bottleneck, for each map that a dense layer adds."""


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, whose maps are put beside those that came in.

    A bottleneck has a batch norm, ReLU and 1x1 convolution before these.
    """

    def __init__(self, inputs: int, growth: int, *, bottleneck: bool) -> None:
        """Build the layer; it adds `growth` maps."""
        super().__init__()
        self.bottleneck = nn.Sequential()
        if bottleneck:
            narrow = nn.Conv2d(inputs, BOTTLENECK * growth, 1, bias=False)
            self.bottleneck = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), narrow)
            inputs = BOTTLENECK * growth
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps that came in, and the new ones. Shape: (B, C, H, W) -> (B, C + growth, H, W)."""
        return torch.cat([maps, self.conv(F.relu(self.norm(self.bottleneck(maps))))], 1)


class DenseNet(nn.Module):
    """DenseNet (Huang et al. 2017): dense stages with halving transitions between. (B, C, H, W) -> (B, D)."""

    def __init__(self, channels: int, growth: int, stages: Sequence[int], *, bottleneck: bool = False) -> None:
        """Stack the stages; `stages` is the number of dense layers in each.

        With a growth of 12, three stages of 16 and bottlenecks it is DenseNet-BC-100: 769,162 parameters with 10
        classes.
        """
        super().__init__()
        width = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for number, depth in enumerate(stages):
            if number > 0:
                layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
                width //= 2
            for _ in range(depth):
                layers.append(DenseLayer(width, growth, bottleneck=bottleneck))
                width += growth
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        """Return features, averaged over positions. Shape: (B, C, H, W) -> (B, D)."""
        maps: Tensor = self.layers(images)
        return maps.mean((2, 3))
