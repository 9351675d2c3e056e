"""PreAct-ResNet-18 with a 3x3 stem, as the noisy-label literature uses it, and its small relatives.

He et al. 2016 (identity mappings), in the form shared by the code of DivideMix, M-correction, ELR+ and SSR: batch norm
and ReLU after the first convolution, none before pooling, a 1x1 shortcut convolution without batch norm, and a
shortcut taken after the block's first batch norm and ReLU, in every block (in He et al. the first convolution stands
alone, an identity shortcut carries the raw input, and batch norm and ReLU come last).

Legend: B batch, C channels in, H x W pixels, D features out.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PreActResNetSettings(EncoderSettings):
    """Widths, depths and strides. The defaults are PreAct-ResNet-18: 11,171,274 parameters with 10 classes."""

    reads: ClassVar[Kind] = "image"

    widths: tuple[Positive, ...] = (64, 128, 256, 512)
    """Channels of each stage; the last is the number of features D."""
    blocks: tuple[Positive, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage."""
    stem_kernel: Positive = 3
    """Side of the first convolution."""
    stem_stride: Positive = 1
    """Stride of the first convolution; 2 or 4 makes small networks several times cheaper."""
    stem_norm: bool = True
    """Batch norm and ReLU after the first convolution, as in all published code; version 0.1.0 had neither."""
    final_norm: bool = False
    """Batch norm and ReLU before pooling (He et al.); the noisy-label literature leaves them out."""

    def __post_init__(self) -> None:
        """Refuse stages without a width or a depth."""
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"widths and blocks need one number for each stage, not {self.widths} and {self.blocks}")

    def build(self, channels: int) -> Encoder:
        """Return a PreAct-ResNet with fresh weights for images of `channels` channels."""
        return PreActResNet(self, channels)


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, plus a shortcut. Shape: (B, inputs, H, W) -> (B, outputs, H/stride, W/stride), rounded up."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make two 3x3 convolutions and, where stride or width change the shape, a 1x1 convolution for the shortcut."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else PointwiseConv(inputs, outputs, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the residual to the activated input.

        Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), rounded up.
        """
        # In place: no backward pass reads the outputs of batch norm and convolution, and moving memory is the cost.
        active = F.relu(self.norm1(inputs), inplace=True)
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active)), inplace=True))
        return residual.add_(self.shortcut(active))


class PreActResNet(Encoder):
    """Stem, stages of `PreActBlock` and average pooling. Shape: (B, C, H, W) -> (B, D)."""

    def __init__(self, settings: PreActResNetSettings, channels: int) -> None:
        """Build the stem and the stages; each stage but the first halves height and width."""
        super().__init__()
        widths, kernel = settings.widths, settings.stem_kernel
        self.num_features = widths[-1]
        self.stem = nn.Conv2d(channels, widths[0], kernel, settings.stem_stride, kernel // 2, bias=False)
        first = (nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)) if settings.stem_norm else ()
        self.stem_norm = nn.Sequential(*first)
        stages: list[nn.Module] = []
        inputs = widths[0]
        for stage, (width, blocks) in enumerate(zip(widths, settings.blocks, strict=True)):
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                stages.append(PreActBlock(inputs, width, stride))
                inputs = width
        self.stages = nn.Sequential(*stages)
        final = (nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)) if settings.final_norm else ()
        self.final = nn.Sequential(*final)
        self.last_blocks = settings.blocks[-1]
        # revisit: compare with contiguous weights (speed/) on each new kind of processor and version of PyTorch.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks in order; each gives maps of shape (B, D_l, H_l, W_l)."""
        return list(self.stages)

    def last_stage(self) -> list[nn.Module]:
        """Return the blocks of the last stage and the layers between them and the pooling."""
        return [*list(self.stages)[-self.last_blocks :], self.final]

    def forward(self, examples: Tensor) -> Tensor:
        """Return pooled features of images. Shape: (B, C, H, W) -> (B, D)."""
        images = examples.contiguous(memory_format=torch.channels_last)
        maps: Tensor = self.final(self.stages(self.stem_norm(self.stem(images))))
        return maps.mean((2, 3))
