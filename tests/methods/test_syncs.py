"""No step of a method waits for the device, and views are made of draws of the CPU on any device.

On a GPU, whatever brings a number to the host (`item`, a mask as an index) waits until all work before it is done. Here
such calls are counted on the CPU: an epoch of twice as many steps may not have more of them.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from scanmix.blocks.mixmatch import mixup
from scanmix.config import build
from scanmix.data.batches import TrainingData
from scanmix.data.views import ViewSettings, make_views
from scanmix.data.views.feature_views import FeatureViewSettings
from scanmix.distributed.engine import LOCAL_DRAWS, Engine
from scanmix.methods import METHODS, Method
from scanmix.networks.preact_resnet import PreActResNetSettings
from tests.tiny import settings

READS = {"tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"}
"""Methods of a tensor that bring numbers to the host."""
SIZES = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "bincount", "unique_consecutive"}
"""Operators that return a number, or as many as the values say."""
ON_THE_HOST = {"augment", "beta", "betas"}
"""Functions that read what was drawn on the CPU."""
EACH_STEP = {"co_teaching_plus": {"choose"}}
"""Methods that have to know a number in each step, and where: on how many rows the predictions differ."""


def place() -> str:
    """The function of the package that called; nothing for an optimizer, which counts its steps on the host."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and "/scanmix/" not in frame.f_code.co_filename:
        if "/torch/optim/" in frame.f_code.co_filename:
            return ""
        frame = frame.f_back
    return "" if frame is None else frame.f_code.co_name


class Calls(TorchFunctionMode):
    """Counts calls that read a tensor."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in READS:
            self.found[place()] += 1
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Counts operators whose result depends on values."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().partition("::")[2].partition(".")[0]
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(each, Tensor) and each.dtype == torch.bool for each in args[1]
        )
        if name in SIZES or masked:
            self.found[place()] += 1
        return function(*args, **(kwargs or {}))


def waits(action: Callable[[], Any]) -> Counter[str]:
    """Where the host would wait for a device, and how often."""
    found: Counter[str] = Counter()
    with Calls(found), Operators(found):
        action()
    return found


@pytest.mark.parametrize("act", [
    lambda x: x.sum().item(), lambda x: float(x[0]), lambda x: x.tolist(), lambda x: x[x > 0], lambda x: x.cpu(),
    lambda x: x.masked_select(x > 0), lambda x: 1 if x[0] > 0 else 0, lambda x: x.__setitem__(x > 0, torch.ones(2)),
    lambda x: (x > 0).nonzero(), lambda x: x.long().bincount(),
])  # fmt: skip
def test_what_waits_is_counted(act: Callable[[Tensor], Any]) -> None:
    assert waits(lambda: act(torch.arange(3.0))).total() >= 1
    assert not waits(lambda: torch.arange(3.0).index_select(0, torch.tensor([1])) * 2)


def scattered(labels: Tensor, num_classes: int) -> Tensor:
    """One-hot rows. PyTorch's function looks at the labels on the CPU, though not on a GPU."""
    return torch.zeros(*labels.shape, num_classes, dtype=torch.int64).scatter_(-1, labels.unsqueeze(-1), 1)


def waits_of_epochs(method: Method, data: TrainingData, network: PreActResNetSettings) -> list[Counter[str]]:
    state = method.start(data, network, Engine())
    return [waits(functools.partial(method.epoch, state, data, epoch)) for epoch in range(method.epochs)]


@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_device(
    name: str, make_data: Callable[[int], TrainingData], network: PreActResNetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "one_hot", scattered)
    epochs: list[list[Counter[str]]] = []
    for size in (32, 16):
        wanted: dict[str, Any] = settings(name)
        for key, value in (("batch_size", size), ("cluster_batch_size", size), ("learning_rate", 1e-3)):
            wanted |= {key: value} if key in wanted else {}
        epochs.append(waits_of_epochs(build(METHODS[name], wanted, where=name), make_data(0), network))
    allowed = {"", *ON_THE_HOST, *EACH_STEP.get(name, ())}
    found = [
        (epoch, where, few[where], many[where])
        for epoch, (few, many) in enumerate(zip(*epochs, strict=True))
        for where in many.keys() - allowed
        if many[where] > few[where]
    ]
    assert not found, "epoch, function, waits in few steps, in twice as many"


@pytest.mark.parametrize("view", ["weak", "strong", "contrastive"])
@pytest.mark.parametrize("settings", [
    ViewSettings(mean=(0.5,), std=(0.2,), crop=12, jitter=(0.4, 0.4, 0.4, 0.1), blur_probability=0.5),
    ViewSettings(mean=(0.5,), std=(0.2,), strong_operations=3, cutout=4, contrast_rotation=10.0),
    FeatureViewSettings(mean=(0.0,), std=(1.0,)),
])  # fmt: skip
def test_views_on_another_device_take_draws_of_the_cpu(view: str, settings: Any) -> None:
    """A tensor on `meta` has no numbers: reading one fails, and so does an operator that mixes devices."""
    vectors = isinstance(settings, FeatureViewSettings)
    images = torch.zeros(8, 5, 1, 1) if vectors else torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    views = make_views(settings, images, flip=True, device=torch.device("meta"))
    generator = Engine(device=torch.device("meta")).generator("learn", 0, "views")
    made = getattr(views, view)(images.to("meta"), generator)
    same = getattr(make_views(settings, images, flip=True), view)(images, Generator().manual_seed(0))
    assert made.device.type == "meta" and (made.shape, made.dtype) == (same.shape, same.dtype)


def test_mixup_on_another_device_takes_draws_of_the_cpu() -> None:
    generator = Engine(device=torch.device("meta")).generator("learn", 0, "mixup")
    inputs, targets = mixup(torch.zeros(4, 3, device="meta"), torch.zeros(4, 2, device="meta"), 0.5, generator)
    assert (inputs.shape, targets.shape, inputs.device.type) == ((4, 3), (4, 2), "meta")


def test_draws_that_the_host_reads_are_made_there() -> None:
    assert all(Engine(device=torch.device("meta")).generator("learn", 0, name).device.type == "cpu"
               for name in LOCAL_DRAWS)  # fmt: skip
