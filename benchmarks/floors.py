"""How near an epoch is to what its convolutions alone would take on this machine.

Two floors. The first: all floating-point operations of the passes that the algorithm needs, at the best rate that any
convolution of the network reached here, forward and backward. The second, which is higher: each convolution at its
own rate. Neither counts batch norm, views, losses, mixtures, or anything else.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.epochs import Ground, prepare, scanmix
from benchmarks.made import LARGE, SMALL
from benchmarks.rows import Row
from benchmarks.stages import shares
from benchmarks.timing import Timing, interleave
from scanmix.doctor.passes import Work, stages
from scanmix.networks.peer import classify
from scanmix.progress import Bar, progress

BATCH = 64
"""Images in a pass of one convolution alone."""
REPEATS = 2


@dataclass(frozen=True)
class Layer:
    """One convolution as the network uses it, and how often it stands there."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    side: int
    first: bool
    """It stands at the images, which need no gradient."""


@dataclass(frozen=True)
class Spent:
    """Of one image through one convolution: operations and seconds, of a forward and of forward and backward."""

    look_operations: float
    learn_operations: float
    look: float
    learn: float


def rows(bar: Bar) -> list[Row]:
    """Compare a ScanMix epoch with its floors, and say where its time goes."""
    return [row for case in (SMALL, LARGE) for row in _rows_of(prepare(case), bar)]


def _rows_of(ground: Ground, bar: Bar) -> list[Row]:
    case, method = ground.case, scanmix("strong")
    start = dataclasses.replace(ground.state, severe=True)
    layers = convolutions(start.peers[0].encoder, ground.data.plain(slice(0, BATCH)))
    with progress(f"floors: {case.name}", 2 + REPEATS, bar) as steps:
        before = {layer: measure(layer) for layer in layers}
        steps.advance()
        states = [copy.deepcopy(start) for _ in range(REPEATS)]
        queue = iter(states)
        times = interleave({"epoch": lambda: _epoch(method, next(queue), ground)}, REPEATS, steps)
        state = copy.deepcopy(start)
        spent = shares(lambda: method.epoch(state, ground.data, 0))
        after = {layer: measure(layer) for layer in layers}
        steps.advance()
    assert state.p_clean is not None
    clean = float((state.p_clean > method.clean_threshold).double().mean())
    work = stages(method, case.count, clean)["training"]
    look, learn = operations(start.peers[0], ground.data.plain(slice(0, BATCH)))
    rate = max(one.learn_operations / one.learn for found in (before, after) for one in found.values())
    quickest = {layer: _quicker(before[layer], after[layer]) for layer in layers}
    best = (work.look * look + work.learn * learn) / rate
    own = alone(work, layers, quickest)
    what = f"ScanMix epoch, strong views: {case.name}"
    passes = f"{work.look / case.count:.1f} forwards and {work.learn / case.count:.1f} with backward an image"
    note = f"{passes}, {clean:.0%} called clean, {look / 1e6:,.1f} MFLOP a forward, {rate / 1e9:.0f} GFLOP/s"
    return [
        _beside(what, times["epoch"], "operations at the best rate", best, note),
        _beside(what, times["epoch"], "each convolution alone", own, ""),
        Row(f"where it goes: {case.name}", note=", ".join(f"{name} {share:.1%}" for name, share in spent.items())),
    ]


def _beside(what: str, ours: Timing, floor: str, seconds: float, note: str) -> Row:
    return Row(what, ours, floor, Timing((seconds,)), f"{ours.best / seconds:.2f} x the floor; {note}".rstrip("; "))


def _epoch(method: Any, state: Any, ground: Ground) -> Any:
    return lambda: method.epoch(state, ground.data, 0)


def convolutions(encoder: nn.Module, images: Tensor) -> Counter[Layer]:
    """Return the convolutions that these images pass, with how often each kind stands in the network."""
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
    """Time one convolution for a while; the quickest pass counts."""
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

    counted = [_counted(act) / BATCH for act in (look, learn)]
    timed = [_quickest(act, seconds) / BATCH for act in (look, learn)]
    return Spent(counted[0], counted[1], timed[0], timed[1])


def operations(peer: Any, images: Tensor) -> tuple[float, float]:
    """Floating-point operations of an image: of a forward, and of forward and backward."""
    network = copy.deepcopy(classify(peer))

    def look() -> None:
        with torch.no_grad():
            network(images)

    return _counted(look) / len(images), _counted(lambda: network(images).sum().backward()) / len(images)


def alone(work: Work, layers: Counter[Layer], spent: dict[Layer, Spent]) -> float:
    """Seconds of the passes if there were nothing but convolutions, each at its own rate."""
    look = sum(times * spent[layer].look for layer, times in layers.items())
    learn = sum(times * spent[layer].learn for layer, times in layers.items())
    return work.look * look + work.learn * learn


def _quicker(one: Spent, other: Spent) -> Spent:
    return dataclasses.replace(one, look=min(one.look, other.look), learn=min(one.learn, other.learn))


def _counted(act: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return int(counter.get_total_flops())


def _quickest(act: Any, seconds: float) -> float:
    act()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        clock = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - clock)
    return best
