"""A strided 1x1 convolution by its sums, and in a process that must not end early."""

import subprocess
import sys

import pytest
import torch

from scanmix.networks.pointwise import PointwiseConv

TRAIN = """
import torch
from scanmix.networks.pointwise import PointwiseConv
torch.set_num_threads(1)
conv, kept = PointwiseConv(4, 8, 2).to(memory_format=torch.channels_last), []
for step in range(400):
    maps = torch.randn(20, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    conv(maps).square().mean().backward()
    kept = [*kept[-50:], torch.empty(1 + step % 37)]
print("alive")
"""


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("inputs", [4, 8, 12])
def test_every_output_is_the_weighted_sum_of_one_pixel(inputs: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = PointwiseConv(inputs, 5, stride)
    maps = torch.randn(3, inputs, 7, 8, requires_grad=True)
    expected = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], maps[:, :, ::stride, ::stride])
    found = conv(maps.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected)
    leaves = (maps, conv.weight)
    ours, slow = (torch.autograd.grad(values.square().sum(), leaves) for values in (found, expected))
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_training_with_few_channels_harms_no_memory() -> None:
    """With a plain convolution such a process is ended by the system on processors without AVX-512."""
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-300:]
