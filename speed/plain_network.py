"""PreAct-ResNet as published code runs it: images with their channels first, and every map kept beside the last.

scanmix keeps channels last and lets batch norm, ReLU and the shortcut work in place; both are part of what its speed
is compared for, so the baseline has neither. The weights, and what comes out, are the same up to rounding.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.networks.preact_resnet import PreActBlock, PreActResNet


class PlainBlock(nn.Module):
    """BN-ReLU-conv twice, added to a shortcut. Shape: (B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""

    def __init__(self, block: PreActBlock) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.shortcut = block.shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        active = F.relu(self.norm1(inputs))
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        residual += self.shortcut(active)
        return residual


class PlainPreActResNet(nn.Module):
    """A copy of an encoder of scanmix. Shape: (B, C, H, W) -> (B, D)."""

    def __init__(self, encoder: PreActResNet) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder)
        self.num_features, self.stem = encoder.num_features, encoder.stem
        self.stages = nn.Sequential(*[PlainBlock(cast(PreActBlock, block)) for block in encoder.stages])
        self.stem_norm, self.final = (
            nn.Sequential(*[nn.ReLU() if isinstance(part, nn.ReLU) else part for part in parts])
            for parts in (encoder.stem_norm, encoder.final)
        )
        self.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.final(self.stages(self.stem_norm(self.stem(images))))
        return F.avg_pool2d(maps, maps.shape[2:]).flatten(1)
