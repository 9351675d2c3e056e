"""What one image costs on this machine, measured on a few batches, and what a whole run costs then.

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
from scanmix.doctor.passes import Work, evaluating, largest_batch, members, stages
from scanmix.files.npy import stays_on_disk
from scanmix.networks.inference import classify, inference
from scanmix.networks.peer import Peer, make_peer
from scanmix.training import RunSettings

SAMPLE = 64
"""Most images of a measured batch, as in a step of most methods; fewer where one image takes long."""
SECONDS = 0.5
"""How long each measurement goes on, at least."""
CLEAN_SHARES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""How many labels look right is not known before; a method that learns from these takes a time among these."""
PROGRAM = 450_000_000
"""Bytes of Python, PyTorch and the libraries around it."""
EXAMPLE = 1500
"""Bytes that a run holds of each example besides its pixels: neighbors, names, the table of the audit."""


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        seconds: for each kind of work, per image.
        kept: bytes that a forward keeps for the backward, per image.
        parameters: of one network, heads included.
    """

    seconds: Work
    kept: float
    parameters: int


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        stages: seconds of each stage, from and to, in order; by how many labels look right.
        memory: bytes at the peak, on the device that trains.
    """

    stages: dict[str, tuple[float, float]]
    memory: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all stages, from and to."""
        low, high = zip(*self.stages.values(), strict=True)
        return sum(low), sum(high)


def estimate(settings: RunSettings, examples: Examples, num_test: int) -> Estimate:
    """Measure what an image costs here with these settings, and multiply by what the method does.

    Takes a few seconds. Pre-training that another run has left in the cache is counted all the same.

    Raises:
        UserError: the device of the settings does not exist on this machine.
    """
    cost, method, count = measure(settings, examples), settings.build_method(), len(examples)
    drawn = min(count, settings.draw.per_epoch or count)
    guesses = [
        stages(method, count, clean) | {"training": stages(method, drawn, clean)["training"]} for clean in CLEAN_SHARES
    ]
    extra = {"training": evaluating(method, count, num_test)}
    found: dict[str, tuple[float, float]] = {}
    for name in guesses[0]:
        spent = [seconds(guess[name] + extra.get(name, Work()), cost) for guess in guesses]
        found[name] = (min(spent), max(spent))
    weights = 4 * 4 * cost.parameters * members(method)  # weight, gradient and Adam's or SGD's moments
    pixels = examples.images.nbytes // count * (count + num_test)
    images = 0 if stays_on_disk(pixels) else pixels
    neighbors = 4 * min(CHUNK * count, COMPARED) if "pre-training" in found else 0
    batch = round(largest_batch(method, count) * cost.kept)
    tables = count * (EXAMPLE + 4 * examples.num_classes * members(method))
    on_cpu = find_device(settings.device).type == "cpu"
    program = PROGRAM if on_cpu else 0
    return Estimate(found, program + weights + images + tables + max(neighbors, batch))


def seconds(work: Work, cost: Cost) -> float:
    """Return how long some work takes at this cost."""
    return (
        work.learn * cost.seconds.learn
        + work.look * cost.seconds.look
        + work.weak * cost.seconds.weak
        + work.strong * cost.seconds.strong
        + work.contrastive * cost.seconds.contrastive
    )


def measure(settings: RunSettings, examples: Examples) -> Cost:
    """Time forward and backward, forward alone and the views of a few batches of the real images.

    Raises:
        UserError: the device of the settings does not exist on this machine.
    """
    engine = Engine(seed=settings.seed, device=find_device(settings.device))
    images = examples.images[:SAMPLE].to(engine.device)
    labels = examples.labels[:SAMPLE].to(engine.device)
    views = make_views(settings.views, images, flip=examples.flip)
    data = TrainingData(images, labels, examples.num_classes, views, engine.generator)
    peer = make_peer(settings.network, data, engine, "measured", 0.9, 5e-4)
    plain = data.eval_view(data.everything)

    def learn(batch: Tensor) -> None:
        peer.train()
        peer.step(F.cross_entropy(peer.classifier(peer.encoder(batch)), labels[: len(batch)]), 1e-3)

    def look(batch: Tensor) -> None:
        with inference(peer, batch_statistics=False):
            classify(peer)(batch)

    few = plain[:8]
    learn(few)  # the first step of all allocates
    clock = time.perf_counter()
    learn(few)
    _wait(engine.device)
    affordable = int(SECONDS * len(few) / (time.perf_counter() - clock))
    batch, pictures = plain[: max(2, affordable)], images[: max(2, affordable)]
    draws = data.generator("measure", 0, "views")

    def timed(act: Callable[[], object]) -> float:
        return _seconds(act, engine.device) / len(batch)

    seconds = Work(
        learn=timed(lambda: learn(batch)),
        look=timed(lambda: look(batch)),
        weak=timed(lambda: views.weak(pictures, draws)),
        strong=timed(lambda: views.strong(pictures, draws)),
        contrastive=timed(lambda: views.contrastive(pictures, draws)),
    )
    return Cost(seconds, _kept(peer, few), sum(weights.numel() for weights in peer.parameters()))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device, or None where nobody says."""
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
    """Repeat for a while, after once for nothing; return the mean."""
    act()
    _wait(device)
    clock, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - clock) < SECONDS:
        act()
        _wait(device)
        times += 1
    return passed / times


def _wait(device: torch.device) -> None:
    """Accelerators work on their own: wait until they have done what they were told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _kept(peer: Peer, batch: Tensor) -> float:
    """Bytes that a forward keeps for the backward, per image."""
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
