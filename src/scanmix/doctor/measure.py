"""Measures what one image costs on this machine, and estimates from it what a whole run takes.

Legend: N training examples, B batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.neighbors import CHUNK, COMPARED
from scanmix.data.batches import TrainingData
from scanmix.data.examples import Examples
from scanmix.data.views import make_views
from scanmix.distributed.engine import Engine, find_device
from scanmix.doctor.fits import fitting
from scanmix.doctor.passes import evaluating, stages
from scanmix.files.npy import stays_on_disk
from scanmix.networks.inference import classify, inference
from scanmix.networks.passes import Passes
from scanmix.networks.peer import Peer, make_peer
from scanmix.training import RunSettings

SAMPLE = 64
"""Images of a measured batch, at most; fewer where one image takes long."""
SECONDS = 0.5
"""Least duration of each measurement, in seconds."""
CLEAN_SHARES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Shares of labels that a method may keep. It is not known before a run, so the estimate is a range over these."""
PROGRAM = 450_000_000
"""Bytes of a process that has loaded Python, PyTorch and the other libraries."""
EXAMPLE = 1500
"""Bytes that a run holds for each example besides its pixels: neighbors, names, the table of the audit."""


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        seconds: seconds per image, for each kind of pass and view.
        activations: bytes per image that a forward pass keeps for the backward pass.
        parameters: weights of one network, heads included.
        features: that its encoder gives, D.
    """

    seconds: Passes
    activations: float
    parameters: int
    features: int = 1


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        stages: least and most seconds of each stage, in order; they differ by how many labels the method keeps.
        memory: bytes at the peak, on the device that trains.
    """

    stages: dict[str, tuple[float, float]]
    memory: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Least and most seconds of the whole run."""
        low, high = zip(*self.stages.values(), strict=True)
        return sum(low), sum(high)


def estimate(
    settings: RunSettings, examples: Examples, num_test: int, count: int | None = None, cost: Cost | None = None
) -> Estimate:
    """Measure what an image costs with these settings, and multiply by the passes that the method counts.

    Takes a few seconds. Pre-training is counted even if the cache has it from another run. While an encoder rests, its
    passes are counted forward alone.

    Args:
        settings: of the run.
        examples: the training examples, or some of them.
        num_test: number of test images, on which accuracy is measured after every epoch.
        count: number of training examples, where `examples` are some of them.
        cost: what `measure` has found with the same network and views, if it has.

    Raises:
        UserError: the device of the settings does not exist on this machine.
    """
    cost, method = cost or measure(settings, examples), settings.build_method()
    count = len(examples) if count is None else count
    drawn = min(count, settings.draw.per_epoch or count)
    possible = [
        stages(method, count, clean) | {"training": stages(method, drawn, clean)["training"]} for clean in CLEAN_SHARES
    ]
    resting = min(1.0, settings.network.resting_epochs() / method.epochs)
    for counts in possible:
        counts["training"] = counts["training"].resting(resting)
    extra = {"training": evaluating(method, count, num_test)}
    found: dict[str, tuple[float, float]] = {}
    for name in possible[0]:
        spent = [seconds(counts[name] + extra.get(name, Passes()), cost) for counts in possible]
        found[name] = (min(spent), max(spent))
    if method.largest_batch(count) == 0:  # no step of gradients: a classifier is fitted at once
        fit = fitting(settings, count, examples.num_classes, cost.features)
        found["training"] = (found["training"][0] + fit, found["training"][1] + fit)
    # Four float32 values for each parameter: weight, gradient, and up to two moments of the optimizer.
    weights = 4 * 4 * cost.parameters * method.about.networks
    pixels = examples.images.nbytes // len(examples) * (count + num_test)
    images = 0 if stays_on_disk(pixels) else pixels
    neighbors = 4 * min(CHUNK * count, COMPARED) if "pre-training" in found else 0
    batch = round(method.largest_batch(count) * cost.activations)
    tables = count * (EXAMPLE + 4 * examples.num_classes * method.about.networks)
    on_cpu = find_device(settings.device).type == "cpu"
    program = PROGRAM if on_cpu else 0
    return Estimate(found, program + weights + images + tables + max(neighbors, batch))


def seconds(passes: Passes, cost: Cost) -> float:
    """Return the seconds that these passes take at this cost."""
    return (
        passes.forward_backward * cost.seconds.forward_backward
        + passes.forward_only * cost.seconds.forward_only
        + passes.weak * cost.seconds.weak
        + passes.strong * cost.seconds.strong
        + passes.contrastive * cost.seconds.contrastive
    )


def measure(settings: RunSettings, examples: Examples) -> Cost:
    """Time forward and backward passes, forward passes alone and views, on a few batches of the real images.

    Raises:
        UserError: the device of the settings does not exist on this machine.
    """
    engine = Engine(
        seed=settings.seed, device=find_device(settings.device), precision=settings.processes.precision
    )  # fmt: skip
    images = examples.images[:SAMPLE].to(engine.device)
    labels = examples.labels[:SAMPLE].to(engine.device)
    views = make_views(settings.views, images, flip=examples.flip)
    data = TrainingData(images, labels, examples.num_classes, views, engine.generator)
    peer = make_peer(settings.network, data, engine, "measured", 0.9, 5e-4)
    eval_views = data.eval_view(data.everything)

    def train_step(batch: Tensor) -> None:
        peer.train()
        peer.step(F.cross_entropy(peer.classifier(peer.encoder(batch)), labels[: len(batch)]), 1e-3)

    def predict(batch: Tensor) -> None:
        with inference(peer, batch_statistics=False):
            classify(peer)(batch)

    few = eval_views[:8]
    train_step(few)  # the first step of all allocates memory, and is not timed
    clock = time.perf_counter()
    train_step(few)
    _wait(engine.device)
    affordable = int(SECONDS * len(few) / (time.perf_counter() - clock))
    batch, pixels = eval_views[: max(2, affordable)], images[: max(2, affordable)]
    draws = data.generator("measure", 0, "views")

    def timed(act: Callable[[], object]) -> float:
        return _seconds(act, engine.device) / len(batch)

    seconds = Passes(
        forward_backward=timed(lambda: train_step(batch)),
        forward_only=timed(lambda: predict(batch)),
        weak=timed(lambda: views.weak(pixels, draws)),
        strong=timed(lambda: views.strong(pixels, draws)),
        contrastive=timed(lambda: views.contrastive(pixels, draws)),
    )
    parameters = sum(weights.numel() for weights in peer.parameters())
    return Cost(seconds, _activations(peer, few), parameters, peer.classifier.in_features)


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _seconds(act: Callable[[], object], device: torch.device) -> float:
    """Return the mean seconds of a call, repeated for `SECONDS` after one call that is not timed."""
    act()
    _wait(device)
    clock, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - clock) < SECONDS:
        act()
        _wait(device)
        times += 1
    return passed / times


def _wait(device: torch.device) -> None:
    """Wait until the device has finished: accelerators run asynchronously."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _activations(peer: Peer, batch: Tensor) -> float:
    """Return the bytes per image that a forward pass keeps for the backward pass."""
    weights = {tensor.data_ptr() for tensor in peer.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    peer.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = peer.classifier(peer.encoder(batch))
        total = sum(kept.values())
    del logits
    return total / len(batch)
