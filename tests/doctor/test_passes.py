"""The counted work is the work that is done: every image that goes through a network or a view is counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scanmix.config import merge
from scanmix.data.batches import TrainingData
from scanmix.data.views import Views, ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.doctor.passes import evaluating, stages
from scanmix.methods import METHODS, Method
from scanmix.networks.passes import Passes
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings
from scanmix.training import resolve
from tests.tiny import settings, suited

PUBLISHED = str(Path(__file__).parents[1] / "published.toml")

COUNT = 50
NETWORK = PreActResNetSettings(widths=(4,), blocks=(1,), stem_stride=2)
MORE: dict[str, dict[str, Any]] = {
    "dividemix": {"warmup": "3 steps", "batch_size": 8, "epochs": 4},
    "augdesc": {"warmup": "3 steps", "batch_size": 8, "epochs": 4},
    "famus": {"warmup": "3 steps", "batch_size": 8, "epochs": 4},
    "mlnt": {"epochs": 7, "burn_in": 2, "rounds": 2, "synthetic": 3},
    "scan": {"clustering": {"epochs": 3, "batch_size": 12}},
    "m_correction": {"epochs": 4, "begin": 2},
    "pes": {"epochs": 4, "warmup": 2, "refit_stage": 3, "refit_head": 2},
    "pes_semi": {"epochs": 4, "warmup": 2, "refit": 2},
    "scan_dividemix": {"pretrain": {"batch_size": 64}, "dividemix": {"batch_size": 8, "minimum_steps": 5}},
    "scanmix": {"clustering": {"epochs": 0}, "batch_size": 8, "cluster_batch_size": 16, "name_clusters": True},
    "exact_em": {"learning_rate": 1e-3},  # no step needs to be halved
}
"""Numbers of steps and epochs of which no two are the same."""


@dataclasses.dataclass
class Outputs:
    """Rows that really went through."""

    counts: dict[str, int]

    @property
    def work(self) -> Passes:
        return Passes(**self.counts)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outputs]:
    counts = {field.name: 0 for field in dataclasses.fields(Passes)}
    forward = PreActResNet.forward

    def counted(self: PreActResNet, images: Tensor) -> Tensor:
        counts["forward_backward" if torch.is_grad_enabled() else "forward_only"] += len(images)
        return forward(self, images)

    monkeypatch.setattr(PreActResNet, "forward", counted)
    for kind in ("weak", "strong", "contrastive"):
        view = getattr(Views, kind)

        def looked(self: Views, images: Tensor, *more: Any, kind: str = kind, view: Any = view) -> Tensor:
            counts[kind] += len(images)
            seen: Tensor = view(self, images, *more)
            return seen

        monkeypatch.setattr(Views, kind, looked)
    yield Outputs(counts)


def run(name: str, overrides: dict[str, Any]) -> Any:
    """Every stage and epoch of a small method; how clean the labels look is settled: all of them, or nearly none."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 1, 8, 8), dtype=torch.uint8)
    engine = Engine()
    data = TrainingData(
        images, torch.arange(COUNT) % 5, 5, make_views(ViewSettings(), images, flip=False), engine.generator
    )
    asked = merge(settings(name, **MORE.get(name, {})), overrides)
    method = resolve(name, "data", PUBLISHED, asked).build_method()
    data = suited(name, data)
    state = method.start(data, NETWORK, engine)
    for epoch in range(method.epochs):
        method.epoch(state, data, epoch)
    return method


def total(method: Method, clean: float) -> Passes:
    return sum(stages(method, COUNT, clean).values(), Passes())


STEADY = [name for name in METHODS if not METHODS[name].about.cost_in_words]


@pytest.mark.parametrize(
    "name", [*STEADY, *("scan forward backward d2l m_correction ssr ssr_plus deep_self mlnt fsr cleannet disc".split())]
)
def test_methods_that_do_not_divide_their_batches(name: str, seen: Outputs) -> None:
    assert total(run(name, {}), 0.5) == seen.work


@pytest.mark.parametrize("halvings", [0, 4])
def test_em_whose_steps_need_no_halving(halvings: int, seen: Outputs) -> None:
    assert total(run("exact_em", {"halvings": halvings}), 0.5) == seen.work


FEW = {"clean_threshold": 1.0, "minimum_clean": 10}


@pytest.mark.parametrize(
    ("name", "overrides", "clean"),
    [
        ("dividemix", FEW, 0.2),
        ("drpl", {"detection_threshold": 1.0, "final_threshold": 1.0, "epochs": 6, "labeled_warmup": 1}, 1.0),
        ("moit_plus", {"interpolation": 4, "epochs": 4, "correction": 1}, 0.5),
        ("incv", {"selection": "100%", "rounds": 1}, 0.5),
        ("dividemix", FEW | {"minimum_steps": 3}, 0.2),
        ("augdesc", FEW, 0.2),
        ("c2d", {"dividemix": FEW}, 0.2),
        ("famus", FEW, 0.2),
        ("famus", FEW | {"minimum_steps": 3}, 0.2),
        ("dividemix", FEW | {"warmup": 99}, 0.2),
        ("scan_dividemix", {"dividemix": FEW, "name_clusters": True}, 0.2),
        ("scan_dividemix", {"dividemix": FEW}, 0.2),
        ("scanmix", FEW | {"severe_noise": 0.5, "severe_view": "strong"}, 0.2),
        ("scanmix", FEW | {"severe_noise": 0.5, "severe_cluster_rate": 0.0}, 0.2),
        ("scanmix", FEW | {"propagate_classes": True, "name_clusters": False, "warmup": 0}, 0.2),
        ("scanmix", FEW | {"severe_noise": 1.0, "mild_warmup": "5 steps", "warmup_part": "network"}, 0.2),
        ("scanmix", FEW | {"severe_noise": 1.0, "warmup_view": "weak", "warmup": "75%"}, 0.2),
        ("scanmix", FEW | {"severe_noise": 1.0, "second_peer": "average", "mild_warmup": "5 steps"}, 0.2),
    ],
)
def test_methods_that_divide(name: str, overrides: dict[str, Any], clean: float, seen: Outputs) -> None:
    assert total(run(name, overrides), clean) == seen.work


def test_more_clean_labels_cost_more_and_nothing_is_negative() -> None:
    for name in ("dividemix", "scan_dividemix", "scanmix"):
        method = resolve(name, "data", PUBLISHED).build_method()
        few, many = stages(method, 5000, 0.2)["training"], stages(method, 5000, 0.9)["training"]
        assert many.forward_backward > few.forward_backward > 0
        assert min(dataclasses.astuple(stages(method, 3, 1.0)["training"])) >= 0


def test_accuracy_and_snapshots() -> None:
    method = resolve("scanmix", "data", PUBLISHED, {"epochs": 40}).build_method()
    assert evaluating(method, 100, 7) == Passes(forward_only=2 * (40 * 7 + 20 * 100))
    few = resolve("mixup", "data", PUBLISHED, {"epochs": 3}).build_method()
    assert evaluating(few, 100, 0) == Passes(forward_only=300)


def test_the_largest_batch() -> None:
    assert resolve("exact_em", "data", PUBLISHED).build_method().largest_batch(300) == 300
    assert resolve("cross_entropy", "data", PUBLISHED).build_method().largest_batch(50_000) == 128
    assert resolve("dividemix", "data", PUBLISHED).build_method().largest_batch(50_000) == 256
    assert resolve("scanmix", "data", PUBLISHED).build_method().largest_batch(50_000) == 1024
    assert resolve("scanmix", "data", PUBLISHED).build_method().largest_batch(100) == 256
