"""Batch norm over the batches of all processes, equal to what one process computes on the whole batch.

PyTorch's `SyncBatchNorm` runs on GPUs only; this one runs on any device. Legend: B batch, C channels, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm  # revisit: private; check that it exists in each new PyTorch

from scanmix.config import UserError


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm with the mean and variance of the rows of all processes, each of which must hold equally many rows.

    A forward costs one message (2C numbers of each process), a backward one more.
    """

    def __init__(self, norm: _BatchNorm, world: int) -> None:
        """Share the weights and buffers of another batch norm, and copy its settings; `world` is W."""
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.world = world

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize by the statistics of all batches, or in evaluation mode by the running ones.

        Shape: (B, C, ...) -> (B, C, ...).
        """
        assert self.running_mean is not None and self.running_var is not None
        if self.training and self.world == 1:
            return super().forward(inputs)
        if not self.training:
            return F.batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        found = _Normalized.apply(inputs, self.weight, self.bias, self.eps, self.world)  # type: ignore[no-untyped-call]
        outputs, mean, variance = found
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        count = self.world * inputs.numel() // inputs.shape[1]
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        normalized: Tensor = outputs
        return normalized

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


def synchronized(network: nn.Module, world: int) -> nn.Module:
    """Replace every batch norm inside the network by a `SynchronizedBatchNorm`, in place; return the network.

    Raises:
        UserError: the network has batch norms of another class than PyTorch's own, as many networks of timm have.
    """
    for name, part in network.named_children():
        if isinstance(part, _BatchNorm) and type(part) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise UserError(f"batch norms of the kind {type(part).__name__} cannot be synchronized: --batch-norm split")
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(network, name, SynchronizedBatchNorm(part, world))
        else:
            synchronized(part, world)
    return network


@contextmanager
def unsynchronized(network: nn.Module) -> Iterator[None]:
    """Let synchronized batch norms take the statistics of the rows that they are given, without messages.

    For passes in which every process has all rows, and whose gradients are differentiated again.
    """
    norms = [part for part in network.modules() if isinstance(part, SynchronizedBatchNorm)]
    worlds = [norm.world for norm in norms]
    for norm in norms:
        norm.world = 1
    try:
        yield
    finally:
        for norm, world in zip(norms, worlds, strict=True):
            norm.world = world


class _Normalized(torch.autograd.Function):
    """weight * (x - mean) / deviation + bias, and the statistics: one message forward and one backward."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, eps: float, world: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        over = [axis for axis in range(inputs.ndim) if axis != 1]
        local = torch.stack(torch.var_mean(inputs.to(weight.dtype), over, correction=0))  # (2, C): variance, mean
        every = [torch.empty_like(local) for _ in range(world)]
        distributed.all_gather(every, local)
        variances, means = torch.stack(every, 1)  # (W, C) each
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)  # within and between processes
        ctx.save_for_backward(inputs, weight, mean, variance)
        ctx.eps, ctx.world, ctx.over = eps, world, over
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(inputs, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        inputs, weight, mean, variance = ctx.saved_tensors
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        scale = (variance + ctx.eps).rsqrt()
        normalized = (inputs.to(weight.dtype) - mean.view(shape)) * scale.view(shape)
        gradient = gradient.to(weight.dtype)
        sums = torch.stack([gradient.sum(ctx.over), (gradient * normalized).sum(ctx.over)])  # (2, C), local
        every = sums.clone()
        distributed.all_reduce(every)
        through_mean, through_scale = (every * (inputs.shape[1] / (ctx.world * inputs.numel()))).view(2, *shape)
        through_inputs = gradient - through_mean - normalized * through_scale
        return (through_inputs * (weight * scale).view(shape)).to(inputs.dtype), sums[1], sums[0], None, None
