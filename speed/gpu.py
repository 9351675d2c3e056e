"""`python -m speed.gpu --device cuda`: what a GPU computes beside the CPU, and how near its rates the stages come.

It takes at most ten minutes and writes `results/gpu.md`. `--device cpu --tiny` runs every line of it in under a minute
and writes nothing. Legend: B batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import torch.nn.functional as F
import typer
from torch import Generator
from torch.utils.flop_counter import FlopCounterMode

import scanmix
from scanmix.config import UserError, build
from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine, Precision, find_device
from scanmix.distributed.process_group import products_in
from scanmix.files import write_text
from scanmix.files.markdown import wrapped
from scanmix.methods import METHODS
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Peer, make_encoder, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering, cluster
from scanmix.pretrain.simclr import SimCLR, simclr
from scanmix.training.checkpoint import pack, unpack
from scanmix.training.versions import versions
from speed import epochs
from speed.made import NUM_CLASSES, made_examples

STAGES: dict[str, Any] = {
    "pretrain": {"epochs": 1, "batch_size": 64}, "clustering": {"epochs": 1, "batch_size": 64}, "num_neighbors": 5
}  # fmt: skip
COMPARED: dict[str, dict[str, Any]] = {
    "cross_entropy": {"epochs": 2, "batch_size": 64},
    "elr": {"epochs": 2, "batch_size": 64},
    "ssr": {"epochs": 2, "batch_size": 64, "num_neighbors": 5},
    "dividemix": {"epochs": 2, "warmup": 1, "batch_size": 32},
    "scanmix": {"epochs": 2, "warmup": 1, "batch_size": 32, "cluster_batch_size": 64, **STAGES},
}
"""Methods whose losses are compared, with their settings."""
CLOSE = 0.02
"""By how much of its value a mean loss of two epochs may differ between devices: rounding grows along the way."""
LEAST_SHARE, MOST_VIEWS = 0.4, 0.1
"""Goals: training's share of the rate of a matrix product, and views' share of a step."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    network: NetworkSettings
    count: int
    """Images of the epoch of ScanMix."""
    batch: int
    side: int
    """Of the matrices that are multiplied."""
    repeats: int


WHOLE = Scale(PreActResNetSettings(), 10_000, 128, 8192, 20)
TINY = Scale(PreActResNetSettings(widths=(8, 16), blocks=(1, 1), stem_stride=2), 96, 16, 128, 2)
SMALL_NETWORK = PreActResNetSettings(widths=(16, 32), blocks=(1, 1), stem_stride=2)


@dataclass(frozen=True)
class CpuDraws(Engine):
    """An engine that draws everything on the CPU, so that two devices see the same batches."""

    def generator(self, stage: str, epoch: int, purpose: str) -> Generator:
        """Return a new generator on the CPU."""
        return Engine(seed=self.seed).generator(stage, epoch, purpose)


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:1, mps, xpu ... or cpu.")] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="Run every line in under a minute; write nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("results/gpu.md"),
) -> None:
    """Compare a device with the CPU, and its stages with its rates, in at most ten minutes."""
    start, place = time.perf_counter(), find_device(device)
    with products_in("32-true"):  # compared with the CPU's
        lines = list(report(place, TINY if tiny else WHOLE))
    lines.append(f"{time.perf_counter() - start:.0f} seconds in all.")
    text = "\n\n".join(lines) + "\n"
    if not tiny:
        write_text(out, text)
    print(text)


def report(device: torch.device, scale: Scale) -> Iterator[str]:
    """Yield the parts of the page."""
    yield "# On a GPU"
    yield wrapped(
        f"`python -m speed.gpu --device {device}`. Device: {name_of(device)}; PyTorch {versions()['torch']}. Images "
        "are made, 32x32x3. A rate is that of the best repeat."
    )
    yield "## The same as on the CPU"
    rows = [agreement(name, device) for name in COMPARED]
    yield table(("method", "largest difference of a mean loss", "after a checkpoint", "same"), rows)
    if device.type == "cpu":
        yield "The device is the CPU itself: only that everything runs, and runs the same way twice, was looked at."
    yield two_processes(device)
    yield "## Rates"
    rates = {name: product_rate(device, kind, scale) for name, kind in KINDS.items()}
    yield table(
        ("what", "rate"),
        [(f"matrix product, {name}", f"{rate / 1e12:.3g} TFLOP/s") for name, rate in rates.items()]
        + [("copy within memory", f"{copy_rate(device, scale) / 1e9:.3g} GB/s")],
    )
    yield "## Stages"
    yield stages(device, scale, rates)


KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def agreement(name: str, device: torch.device) -> tuple[str, ...]:
    """Train two epochs on the CPU, on the device, and on the device with a checkpoint between them."""
    losses = [two_epochs(name, place, halved=halved)
              for place, halved in ((torch.device("cpu"), False), (device, False), (device, True))]  # fmt: skip
    apart = [max(abs(one[key] - other[key]) / (1 + abs(one[key])) for key in one)
             for one, other in ((losses[0], losses[1]), (losses[1], losses[2]))]  # fmt: skip
    if any(not math.isfinite(value) for value in apart):
        raise UserError(f"{name}: a loss on {device} is no number")
    return name, f"{apart[0]:.2g}", f"{apart[1]:.2g}", "yes" if max(apart) <= CLOSE else "NO"


def two_epochs(name: str, device: torch.device, *, halved: bool) -> dict[str, float]:
    """Return all mean losses of two epochs on 256 images; `halved`: the second goes on from a checkpoint."""
    engine = CpuDraws(device=device)
    data = made(256, 16, engine, ViewSettings(mean=(0.5,), std=(0.25,)))
    method = build(METHODS[name], COMPARED[name], where=name)
    state, heads = method.start(data, SMALL_NETWORK, engine), type(method).heads

    def empty() -> Peer:
        return make_peer(SMALL_NETWORK, data, engine, "", heads=heads)

    found = {}
    for epoch in range(2):
        if halved and epoch == 1:
            state = unpack(method.State, pack(state), empty)
        for key, value in method.epoch(state, data, epoch).items():
            if not key.startswith("seconds/"):
                found[f"{epoch} {key}"] = value
    return found


def two_processes(device: torch.device) -> str:
    """Compare the losses of one process and of two, each with a device to itself."""
    if device.type != "cpu" and torch.accelerator.device_count() < 2:
        return "There is one such device: two processes were not compared."
    network = {"widths": [16, 32], "blocks": [1, 1], "stem_stride": 2}
    losses = [
        scanmix.train(
            made_examples(256, (3, 16, 16)), method="cross_entropy", epochs=1, batch_size=64, device=device.type,
            devices=devices, network=network, progress=False, views={"crop_padding": 0, "flip": False},
        ).metrics[0]["learn/loss"]
        for devices in (1, 2)
    ]  # fmt: skip
    apart = abs(losses[0] - losses[1]) / (1 + abs(losses[0]))
    verdict = "the same" if apart <= CLOSE else "NOT the same"
    return f"Losses of one process and of two are {verdict}: {losses[0]:.5f} and {losses[1]:.5f}."


def made(count: int, side: int, engine: Engine, views: ViewSettings) -> TrainingData:
    """Return made images on the engine's device."""
    examples = made_examples(count, (3, side, side))
    images = examples.images.to(engine.device)
    made_of = make_views(views, examples.images, flip=True, device=engine.device)
    return TrainingData(images, examples.labels.to(engine.device), NUM_CLASSES, made_of, engine.generator)


def stages(device: torch.device, scale: Scale, rates: Mapping[str, float]) -> str:
    """Measure views, passes, stages and one epoch of ScanMix; say whether the goals are reached."""
    engine = Engine(device=device, precision="bf16-mixed")
    data = made(scale.count, 32, engine, ViewSettings())
    index, (draws,) = data.everything[: scale.batch], data.generators("speed", 0, "views")
    images = data.images[index]
    views = {kind: getattr(data.views, kind) for kind in ("weak", "strong", "contrastive")}
    spent = {
        f"{kind} views": seconds(device, lambda view=view: view(images, draws), scale.repeats)  # type: ignore[misc]
        for kind, view in views.items()
    }
    steps, operations = dict[str, float](), 0.0
    for precision in get_args(Precision):
        steps[precision], operations = training_step(data, scale, device, precision)
        spent[f"training step, {precision}"] = steps[precision]
    if device.type != "cpu":  # where it brings nothing and takes half a minute
        spent["training step, bf16-mixed, compiled"], _ = training_step(
            data, scale, device, "bf16-mixed", compiled=True
        )
    share = operations / steps["bf16-mixed"] / rates["bfloat16"]
    of_step = spent["weak views"] / (spent["weak views"] + steps["bf16-mixed"])
    method = epochs.scanmix("strong")
    state = method.start(data, scale.network, engine)
    encoder = make_encoder(scale.network, 3, engine, "encoder")
    size, peer = min(512, scale.count // 2), copy.deepcopy(state.peers[0])
    pretrain, clustering = SimCLR(epochs=1, batch_size=size), Clustering(epochs=1, batch_size=min(128, size))
    whole: dict[str, Callable[[], object]] = {
        "epoch of SimCLR and its sweep": lambda: simclr(pretrain, encoder, data, engine, None),
        "epoch of SCAN": lambda: cluster(clustering, peer, state.candidates, data, engine, None),
        "epoch of ScanMix, strong views": lambda: method.epoch(state, data, 0),
    }
    taken = {name: seconds(device, work, 1) for name, work in whole.items()}
    epoch = taken["epoch of ScanMix, strong views"]
    rows = [(name, f"{scale.batch / each:,.0f}") for name, each in spent.items()]
    rows += [(name, f"{scale.count / each:,.0f}") for name, each in taken.items()]
    hours = 300 * epoch * 50_000 / scale.count / 3600
    return "\n\n".join([
        table(("what", "images a second"), rows),
        wrapped(f"- A training step has {share:.0%} of the rate of a bfloat16 product (goal: {LEAST_SHARE:.0%})."),
        wrapped(f"- Weak views take {of_step:.0%} of a step with them (goal: at most {MOST_VIEWS:.0%})."),
        wrapped(f"- 300 epochs of ScanMix on 50,000 images, at the rate of this one on {scale.count:,}: {hours:.1f} "
                "hours."),
    ])  # fmt: skip


def training_step(
    data: TrainingData, scale: Scale, device: torch.device, precision: Precision, *, compiled: bool = False
) -> tuple[float, float]:
    """Return seconds and floating-point operations of a step of cross-entropy on a batch, views left out.

    The operations of a compiled step are not counted.
    """
    engine = Engine(device=device, precision=precision, compiled=compiled)
    peer = make_peer(scale.network, data, engine, "a", 0.9, 5e-4)
    index = data.everything[: scale.batch]
    inputs, labels = data.eval_view(index), data.labels[index]
    peer.train()

    def step() -> None:
        peer.step(F.cross_entropy(peer.logits(inputs), labels), 0.01)

    with products_in(precision):
        if compiled:
            return seconds(device, step, scale.repeats), 0.0
        with FlopCounterMode(display=False) as counter:
            step()
        return seconds(device, step, scale.repeats), float(counter.get_total_flops())


def product_rate(device: torch.device, kind: torch.dtype, scale: Scale) -> float:
    """Return operations a second of a product of square matrices."""
    one = torch.randn(scale.side, scale.side, device=device).to(kind)
    return 2 * scale.side**3 / seconds(device, lambda: one @ one, scale.repeats)


def copy_rate(device: torch.device, scale: Scale) -> float:
    """Return bytes a second that are read and written while memory is copied."""
    one = torch.zeros(scale.side, scale.side, device=device)
    other = torch.empty_like(one)
    return 2 * one.nbytes / seconds(device, lambda: other.copy_(one), scale.repeats)


def seconds(device: torch.device, work: Callable[[], object], repeats: int) -> float:
    """Return the least seconds of some work, all that it put on the device included; once more before, to warm up."""
    found = []
    for _ in range(repeats + (repeats > 1)):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - start)
    return min(found)


def wait(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def name_of(device: torch.device) -> str:
    """Return what the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    typer.run(main)
