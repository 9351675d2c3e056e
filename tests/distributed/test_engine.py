"""Derived randomness, gradients, the meter that stops at the first bad number, devices."""

import math
import time
from typing import Any

import pytest
import torch

from scanmix.config import UserError
from scanmix.distributed.engine import Engine, derived_seed, find_device
from scanmix.distributed.meter import UNREAD, Diverged, Meter


def draw(engine: Engine, stage: str = "learn", epoch: int = 0, purpose: str = "order") -> list[float]:
    return torch.rand(4, generator=engine.generator(stage, epoch, purpose)).tolist()


def test_a_generator_depends_on_each_of_its_names_and_on_nothing_else() -> None:
    first = draw(Engine(seed=1))
    torch.manual_seed(123)
    assert draw(Engine(seed=1)) == first, "same names, same draws, whatever the global generator"
    others = [
        draw(Engine(seed=2)),
        draw(Engine(seed=1), stage="cluster"),
        draw(Engine(seed=1), epoch=1),
        draw(Engine(seed=1), purpose="views"),
    ]
    assert len({tuple(values) for values in [first, *others]}) == 5


def test_processes_share_orders_and_draw_views_for_themselves() -> None:
    first, second = Engine(seed=1, world=2), Engine(seed=1, rank=1, world=2)
    assert draw(first, purpose="order") == draw(second, purpose="order") == draw(Engine(seed=1), purpose="order")
    assert draw(first, purpose="views") == draw(Engine(seed=1), purpose="views") != draw(second, purpose="views")
    assert draw(first, purpose="mixup") != draw(second, purpose="mixup")


def test_taking_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    draw(Engine())
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_keep_names_apart_and_fit_into_63_bits() -> None:
    assert derived_seed(0, "ab", "c") != derived_seed(0, "a", "bc")
    assert derived_seed(1, "1") != derived_seed(11, "")
    assert derived_seed(0, "a", "b") != derived_seed(0, "b", "a")
    seeds = [derived_seed(seed, "x") for seed in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds) and len(set(seeds)) == 1000
    assert max(seeds) > 2**62, "all bits are used"


def test_seeds_stay_the_same_from_version_to_version() -> None:
    """A changed formula changes every run there is: sha256 of the parts joined by the unit separator."""
    assert derived_seed(0, "learn", "3", "order", "0") == 8531329402055121951


def test_backward_gives_the_gradient() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    Engine().backward((weight**2).sum(), torch.nn.Module())
    assert weight.grad is not None and weight.grad.tolist() == [2.0, 4.0]


def test_meter_means_losses_and_adds_seconds() -> None:
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add("learn", total=torch.tensor(value, requires_grad=True), prior=torch.tensor(-value))
    meter.add("cluster", total=torch.tensor(5.0))
    for _ in range(2):
        with meter.timed("learn"):
            time.sleep(0.01)
    results = meter.results()
    seconds = results.pop("seconds/learn")
    assert results == {"learn/total": 3.0, "learn/prior": -3.0, "cluster/total": 5.0}
    assert 0.02 <= seconds < 5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_meter_stops_at_the_first_loss_that_is_no_number(bad: float) -> None:
    meter = Meter()
    meter.add("warmup", loss=torch.tensor(1.0))
    for _ in range(2):
        meter.add("learn", labeled=torch.tensor(1.0), prior=torch.tensor(0.0))
    meter.add("learn", labeled=torch.tensor(1.0), prior=torch.tensor(bad))
    meter.add("learn", labeled=torch.tensor(bad), prior=torch.tensor(bad))
    with pytest.raises(Diverged, match=r"the prior loss became .* at step 3 of learn") as caught:
        meter.results()
    assert str(bad) in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_meter_stops_within_so_many_steps_of_a_loss_that_is_no_number() -> None:
    meter = Meter()
    meter.add("learn", total=torch.tensor(math.nan))
    with pytest.raises(Diverged, match="step 1 of learn"):
        for _ in range(UNREAD - 1):
            meter.add("learn", total=torch.tensor(1.0))


def test_meter_reads_losses_of_all_precisions_together() -> None:
    meter = Meter()
    for step in range(2 * UNREAD + 1):
        meter.add("learn", total=torch.tensor(step, dtype=torch.float64) / 3, prior=torch.tensor(0.1))
    assert meter.results() == {
        "learn/total": pytest.approx(2 * UNREAD / 6, rel=1e-15), "learn/prior": float(torch.tensor(0.1))
    }  # fmt: skip


def test_an_engine_is_silent_until_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    Engine().tick("stage", 1, 2, "note")
    heard = list[tuple[str, int, int, str]]()
    Engine(tick=lambda *news: heard.append(news)).tick("stage", 1, 2, "note")
    assert capsys.readouterr().out == "" and heard == [("stage", 1, 2, "note")]


@pytest.mark.parametrize("name", [3, None, ["cpu"], 1.5])
def test_what_is_no_name_of_a_device_is_told(name: Any) -> None:
    with pytest.raises(UserError, match="device must be the name of one, such as 'auto'"):
        find_device(name)


@pytest.mark.parametrize("name", ["meta", "", "\udcff", "cuda:99999999999999999999", "cpu:-1"])
def test_a_device_on_which_nothing_can_be_computed_is_told(name: str) -> None:
    with pytest.raises(UserError, match="cannot be used on this machine; choose one of"):
        find_device(name)


def test_find_device() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert isinstance(find_device("auto"), torch.device)
    torch.empty(1, device=find_device("auto"))


def test_an_accelerator_without_float64_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of Apple, on which losses could not be summed as on others."""
    accelerator, made = torch.device("meta"), torch.empty
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator)
    assert find_device("auto") == accelerator

    def without(*size: int, dtype: torch.dtype = torch.float32, device: object = "cpu") -> torch.Tensor:
        if dtype is torch.float64 and torch.device(str(device)) == accelerator:
            raise TypeError("no float64")
        return made(*size, dtype=dtype, device=str(device))

    monkeypatch.setattr(torch, "empty", without)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"choose one of: auto, cpu$"):
        find_device("meta")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cpuu", "xla"])
def test_a_device_that_is_not_there_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match="choose one of: auto, cpu"):
        find_device(name)
