"""ResNet (He et al. 2016): ResNet-50 of the paper's Clothing1M runs, and ResNet-18 of the published CIFAR code.

Batch norm and ReLU come after each convolution; a bottleneck's stride is in its 3x3 convolution (torchvision's form).
Legend: B batch, C channels in, H x W pixels, D features out.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from scanmix.config import STRICT
from scanmix.data.examples import Kind
from scanmix.networks.contract import Encoder, EncoderSettings
from scanmix.networks.pointwise import PointwiseConv

Positive = Annotated[int, Field(ge=1)]
EXPANSION = 4
"""A bottleneck's outputs for each of its inner channels."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResNetSettings(EncoderSettings):
    """Widths, depths and stem. The defaults are ResNet-50: 25,557,032 parameters with 1,000 classes."""

    reads: ClassVar[Kind] = "image"

    kind: Literal["resnet"]
    """Tells these settings from those of other networks."""
    widths: tuple[Positive, ...] = (64, 128, 256, 512)
    """Channels inside the blocks of each stage."""
    blocks: tuple[Positive, ...] = (3, 4, 6, 3)
    """Residual blocks of each stage; (2, 2, 2, 2) without bottlenecks is ResNet-18."""
    bottleneck: bool = True
    """Three convolutions in a block, 1x1, 3x3 and 1x1 to four times the width; else two of 3x3."""
    stem_kernel: Positive = 7
    """Side of the first convolution; 3 for CIFAR."""
    stem_stride: Positive = 2
    """Stride of the first convolution; 1 for CIFAR."""
    stem_pool: bool = True
    """3x3 max pooling with stride 2 after the stem; none for CIFAR."""

    def __post_init__(self) -> None:
        """Refuse stages without a width or a depth."""
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"widths and blocks need one number for each stage, not {self.widths} and {self.blocks}")

    def build(self, channels: int) -> Encoder:
        """Return a ResNet with fresh weights for images of `channels` channels."""
        return ResNet(self, channels)


class Block(nn.Module):
    """Convolutions with batch norm and ReLU, plus a shortcut.

    Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), rounded up; outputs are `width`, and with
    `bottleneck` EXPANSION times that.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        """Make the convolutions and, where stride or width change the shape, a 1x1 convolution for the shortcut."""
        super().__init__()
        outputs = EXPANSION * width if bottleneck else width
        plan = (
            [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            if bottleneck
            else [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False) for before, after, kernel, step in plan
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _, after, _, _ in plan)
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(PointwiseConv(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the residual to the shortcut, then apply ReLU. Shape: (B, inputs, H, W) -> (B, outputs, H / s, W / s)."""
        maps = inputs
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            maps = norm(conv(maps))
            if index + 1 < len(self.convs):
                maps = F.relu(maps, inplace=True)
        return F.relu(maps.add_(self.shortcut(inputs)), inplace=True)


class ResNet(Encoder):
    """Stem, stages of `Block` and average pooling over all positions. Shape: (B, C, H, W) -> (B, D)."""

    def __init__(self, settings: ResNetSettings, channels: int) -> None:
        """Build the stem and the stages; each stage but the first halves height and width.

        Convolutions begin with the normal distribution of He et al. 2015 (fan out).
        """
        super().__init__()
        kernel, inputs = settings.stem_kernel, settings.widths[0]
        stem: list[nn.Module] = [
            nn.Conv2d(channels, inputs, kernel, settings.stem_stride, kernel // 2, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
        ]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(3, 2, 1)] if settings.stem_pool else []))
        stages: list[nn.Module] = []
        for stage, (width, blocks) in enumerate(zip(settings.widths, settings.blocks, strict=True)):
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                stages.append(Block(inputs, width, stride, bottleneck=settings.bottleneck))
                inputs = EXPANSION * width if settings.bottleneck else width
        self.stages = nn.Sequential(*stages)
        self.last_blocks = settings.blocks[-1]
        self.num_features = inputs
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        # revisit: compare with contiguous weights (speed/) on each new kind of processor and version of PyTorch.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks in order; each gives maps of shape (B, D_l, H_l, W_l)."""
        return list(self.stages)

    def last_stage(self) -> list[nn.Module]:
        """Return the blocks of the last stage."""
        return list(self.stages)[-self.last_blocks :]

    def forward(self, examples: Tensor) -> Tensor:
        """Return pooled features of images. Shape: (B, C, H, W) -> (B, D)."""
        images = examples.contiguous(memory_format=torch.channels_last)
        maps: Tensor = self.stages(self.stem(images))
        return maps.mean((2, 3))
