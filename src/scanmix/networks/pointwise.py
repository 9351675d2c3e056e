"""1x1 convolutions, with a way around a fault of oneDNN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution without bias. Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), rounded up.

    On processors with AVX2 but not AVX-512 the weight gradient of oneDNN 3.12 (PyTorch 2.13) for channels last,
    stride above 1 and fewer than eight input channels writes past its buffer, which ends the process sooner or later.
    Where channels do not fill its blocks of eight, what a stride leaves out is cut away first: the same sums.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make fresh weights."""
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        step = self.stride[0]
        if step == 1 or self.in_channels % 8 == 0:
            return super().forward(input)
        return F.conv2d(input[..., ::step, ::step], self.weight)
