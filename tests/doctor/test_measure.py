"""Times are real, products of counts and costs; memory is what the tensors of a step take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from scanmix.data.examples import Examples
from scanmix.doctor import measure as module
from scanmix.doctor.measure import Cost, Estimate, estimate, free_memory, measure, seconds
from scanmix.doctor.passes import evaluating, stages
from scanmix.networks.passes import Passes
from scanmix.training import RunSettings, resolve

PUBLISHED = str(Path(__file__).parents[1] / "published.toml")

TINY = {"network": {"widths": [4], "blocks": [1]}}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.01)


def made(count: int = 100, side: int = 8) -> Examples:
    return Examples(
        images=torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8),
        labels=torch.arange(count) % 2,
        class_names=("a", "b"),
        ids=tuple(map(str, range(count))),
    )


def settings(method: str = "scanmix") -> RunSettings:
    return resolve(method, "data", PUBLISHED, TINY, device="cpu")


@pytest.mark.parametrize("count", [2, 100])
def test_every_kind_of_work_takes_some_time(count: int) -> None:
    cost = measure(settings(), made(count))
    assert all(spent > 0 for spent in dataclasses.astuple(cost.seconds))
    # stem 4x1x3x3, its norm of 4 + 4; two norms of 4 + 4; two convolutions 4x4x3x3; two heads of 4x2 + 2
    assert cost.parameters == 36 + 8 + 16 + 288 + 20


def test_larger_images_keep_more() -> None:
    small, large = measure(settings(), made(side=8)), measure(settings(), made(side=64))
    assert large.activations == pytest.approx(64 * small.activations, rel=0.2)
    # A block keeps at least the inputs of its convolutions, 4 channels of 4 bytes for each pixel.
    assert small.activations > 2 * 4 * 4 * 64


def test_seconds_are_counts_times_costs() -> None:
    cost = Cost(Passes(forward_backward=2.0, forward_only=3.0, weak=5.0, strong=7.0, contrastive=11.0), 0.0, 0)
    passes = Passes(forward_backward=1, forward_only=10, weak=100, strong=1000, contrastive=10_000)
    assert seconds(passes, cost) == 117_532
    assert seconds(Passes(), cost) == 0


def test_the_stages_of_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Cost(Passes(forward_backward=1.0), activations=1000.0, parameters=500)
    monkeypatch.setattr(module, "measure", lambda *_: cost)
    found = estimate(settings(), made(), 0)
    assert list(found.stages) == ["pre-training", "clustering", "training"]
    method = settings().build_method()
    spent = [stages(method, 100, clean)["training"].forward_backward for clean in module.CLEAN_SHARES]
    assert found.stages["training"] == (min(spent), max(spent)) and min(spent) < max(spent)
    assert found.stages["pre-training"] == (100_000.0, 100_000.0)
    assert found.seconds == tuple(sum(pair[side] for pair in found.stages.values()) for side in (0, 1))
    # program, weights of two networks four times, images, tables, and the larger of neighbors and a batch of 256 rows
    tables = 100 * (module.EXAMPLE + 2 * 2 * 4)
    assert found.memory == module.PROGRAM + 2 * 16 * 500 + 100 * 64 + tables + max(256 * 1000, 4 * 512 * 100)


def test_pixels_on_the_disk_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda *_: Cost(Passes(), 0.0, 0))
    in_memory = estimate(settings(), made(), 10).memory
    monkeypatch.setenv("SCANMIX_IN_MEMORY", str(110 * 64 - 1))
    assert in_memory - estimate(settings(), made(), 10).memory == 110 * 64


def test_test_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda *_: Cost(Passes(forward_only=1.0), 0.0, 0))
    without, with_some = (estimate(settings("mixup"), made(), count) for count in (0, 10))
    method = settings("mixup").build_method()
    assert without == Estimate({"training": (evaluating(method, 100, 0).forward_only,) * 2}, without.memory)
    assert with_some.seconds[0] - without.seconds[0] == 300 * 10 and with_some.memory - without.memory == 10 * 64


def test_free_memory_is_told_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert (free_memory(cpu) or 10**9) > 10**6

    def gone(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", gone)
    assert (free_memory(cpu) or 10**9) > 10**6


def test_an_encoder_at_rest_costs_forward_passes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With times of one second each, the estimate counts passes."""
    unit = Cost(Passes(1.0, 0.25, 0.0, 0.0, 0.0), 0.0, 0)
    monkeypatch.setattr(module, "measure", lambda settings, examples: unit)
    plain = resolve("cross_entropy", "data", None, {"epochs": 4, **TINY}, device="cpu")
    awake = estimate(plain, made(), 0).stages["training"][0]
    monkeypatch.setattr(type(plain.network), "resting_epochs", lambda network: 3)
    rested = estimate(plain, made(), 0).stages["training"][0]
    assert awake - rested == pytest.approx(3 * 100 * (1 - 0.25))
    monkeypatch.setattr(type(plain.network), "resting_epochs", lambda network: 9)
    assert awake - estimate(plain, made(), 0).stages["training"][0] == pytest.approx(4 * 100 * (1 - 0.25))
