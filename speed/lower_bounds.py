"""How near an epoch is to what its convolutions alone would take on this machine.

There are two lower bounds. The first takes all floating-point operations of the passes that the algorithm needs, at
the best rate that any convolution of the network reached here, forward and backward. The second, which is higher, takes
each convolution at its own rate. Neither counts batch norm, views, losses, mixtures, or anything else.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scanmix.doctor.passes import stages
from scanmix.networks.inference import classify
from scanmix.networks.passes import Passes
from scanmix.networks.peer import Peer
from scanmix.networks.pointwise import PointwiseConv
from scanmix.progress import Bar, progress
from speed.epochs import Setup, ours, prepare, scanmix
from speed.made import LARGE, SMALL
from speed.rows import Row
from speed.stages import shares
from speed.timing import Timing, interleave

BATCH = 64
"""Images in a pass of one convolution alone."""
REPEATS = 2
CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Layer:
    """One convolution as the network uses it."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    side: int
    first: bool
    """It takes the images themselves, which need no gradient."""


@dataclass(frozen=True)
class Cost:
    """What one image costs: floating-point operations, and the least seconds by the clock and of the processor."""

    operations: float
    wall: float
    cpu: float

    def least(self, other: Cost) -> Cost:
        return Cost(self.operations, min(self.wall, other.wall), min(self.cpu, other.cpu))


class Spent(NamedTuple):
    """The cost of one convolution on one image."""

    look: Cost
    """Forward only."""
    learn: Cost
    """Forward and backward."""


def rows(bar: Bar) -> list[Row]:
    """Compare a ScanMix epoch with its lower bounds, and say where its time goes."""
    return [row for workload in (SMALL, LARGE) for row in _rows_of(prepare(workload), bar)]


def _rows_of(setup: Setup, bar: Bar) -> list[Row]:
    workload, method = setup.workload, scanmix("strong")
    start = dataclasses.replace(setup.state, severe=True)
    images = setup.data.eval_view(slice(0, BATCH))
    layers = convolutions(start.peers[0].encoder, images)
    with progress(f"lower bounds: {workload.name}", 3 + REPEATS, bar) as steps:
        before = {layer: measure(layer) for layer in layers}
        steps.advance()
        epoch = interleave({"epoch": ours(start, method, setup.data)}, REPEATS, steps)["epoch"]
        state = copy.deepcopy(start)
        spent = shares(lambda: method.epoch(state, setup.data, 0))
        steps.advance()
        after = {layer: measure(layer) for layer in layers}
        steps.advance()
    costs = {layer: Spent(*map(Cost.least, before[layer], after[layer])) for layer in layers}
    assert state.p_clean is not None
    clean = float((state.p_clean > method.clean_threshold).double().mean())
    work = stages(method, workload.count, clean)["training"]
    look, learn = operations(start.peers[0], images)
    total = work.forward_only * look + work.forward_backward * learn
    rates = [max(cost.learn.operations / getattr(cost.learn, clock) for cost in costs.values()) for clock in CLOCKS]
    what = f"ScanMix epoch, strong views: {workload.name}"
    note = (
        f"{workload.count:,} images, {clean:.0%} called clean; {work.forward_only / workload.count:.1f} forwards and "
        f"{work.forward_backward / workload.count:.1f} with backward an image; {look / 1e6:,.1f} MFLOP a forward; "
        f"{rates[0] / 1e9:.0f} GFLOP/s at best"
    )
    at_best = Timing((total / rates[0],), (total / rates[1],))
    return [
        _beside(what, epoch, "operations at the best rate", at_best, note),
        _beside(what, epoch, "each convolution alone", convolutions_alone(work, layers, costs), ""),
        Row(f"where it goes: {workload.name}", note=", ".join(f"{name} {share:.1%}" for name, share in spent.items())),
    ]


def _beside(what: str, epoch: Timing, name: str, bound: Timing, note: str) -> Row:
    over = f"{epoch.best / bound.best:.2f} x the lower bound (cpu {min(epoch.cpu) / bound.cpu[0]:.2f})"
    return Row(what, epoch, name, bound, f"{over}; {note}" if note else over)


def convolutions(encoder: nn.Module, images: Tensor) -> Counter[Layer]:
    """Return the convolutions that these images pass, with how often each is in the network. Shape: (B, C, H, W)."""
    found: Counter[Layer] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d) and isinstance(module.padding[0], int)
        sizes = module.kernel_size[0], module.stride[0], module.padding[0], inputs[0].shape[-1]
        found[Layer(module.in_channels, module.out_channels, *sizes, first=not found)] += 1

    handles = [part.register_forward_hook(note) for part in encoder.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        encoder.eval()(images)
    for handle in handles:
        handle.remove()
    return found


def measure(layer: Layer, seconds: float = 0.3) -> Spent:
    """Time one convolution for about so many seconds; the quickest pass counts."""
    part: nn.Conv2d
    if layer.kernel == 1:
        part = PointwiseConv(layer.inputs, layer.outputs, layer.stride)
    else:
        part = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=False)
    part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in the network
    images = torch.randn(BATCH, layer.inputs, layer.side, layer.side).contiguous(memory_format=torch.channels_last)
    images.requires_grad_(not layer.first)
    gradient = torch.ones_like(part(images))

    def look() -> None:
        with torch.no_grad():
            part(images)

    def learn() -> None:
        part.weight.grad = images.grad = None
        part(images).backward(gradient)

    return Spent(_cost(look, seconds), _cost(learn, seconds))


def operations(peer: Peer, images: Tensor) -> tuple[float, float]:
    """Count floating-point operations for an image: forward only, and forward and backward. Shape: (B, C, H, W)."""
    network = copy.deepcopy(classify(peer))

    def look() -> None:
        with torch.no_grad():
            network(images)

    return _counted(look) / len(images), _counted(lambda: network(images).sum().backward()) / len(images)


def convolutions_alone(work: Passes, layers: Counter[Layer], costs: Mapping[Layer, Spent]) -> Timing:
    """Return the seconds of the passes if there were nothing but convolutions, each at its own rate."""
    wall, cpu = (
        sum(
            times
            * (
                work.forward_only * getattr(costs[layer].look, clock)
                + work.forward_backward * getattr(costs[layer].learn, clock)
            )
            for layer, times in layers.items()
        )
        for clock in CLOCKS
    )
    return Timing((wall,), (cpu,))


def _counted(act: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return int(counter.get_total_flops())


def _cost(act: Callable[[], object], seconds: float) -> Cost:
    """Repeat for about so many seconds; the quickest pass of `BATCH` images counts."""
    found, began = Cost(_counted(act) / BATCH, float("inf"), float("inf")), time.perf_counter()
    passes = 0
    while passes < 3 or time.perf_counter() - began < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        act()
        passes += 1
        spent = time.perf_counter() - wall, time.process_time() - cpu
        found = found.least(Cost(found.operations, *(value / BATCH for value in spent)))
    return found
