"""1x1 convolutions, with a workaround for a bug of oneDNN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution without bias. Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), rounded up.

    On processors with AVX2 but without AVX-512, oneDNN 3.12 (in PyTorch 2.13) writes past its buffer in the weight
    gradient for channels last, a stride above 1 and fewer than eight input channels; the process may crash at any
    time later. So where channels are not a multiple of eight, the input is strided first and convolved with stride 1,
    which adds up the same products.
    """

    # revisit: with each new PyTorch, train a network of 4 channels and stride 2 on a processor with AVX2 alone under
    # valgrind or AddressSanitizer; where oneDNN is fixed and older versions are no longer supported, use nn.Conv2d.

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make fresh weights, as `nn.Conv2d` draws them."""
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolved maps. Shape: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride), rounded up."""
        step = self.stride[0]
        if step == 1 or self.in_channels % 8 == 0:
            return super().forward(input)
        return F.conv2d(input[..., ::step, ::step], self.weight)
