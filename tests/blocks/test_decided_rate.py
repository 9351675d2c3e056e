"""The share of wrong labels from a model and a person's decisions, against what is written out, and by simulation."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from scanmix.blocks.decided_rate import (
    LEAST,
    NARROW,
    STRATA,
    DecidedRate,
    at_rate,
    informative_order,
    rate_with_decisions,
    strata_of,
)
from scanmix.blocks.label_quality import SAMPLING, RateInterval

DRAWS = 200


def world(seed: int, count: int = 1000, bend: float = 1.0, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Chances that a model states, which labels are wrong, and random numbers; calibrated with bend 1 and shift 0."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.rand(count, generator=draw, dtype=torch.float64)
    true = torch.where(spread < 0.6, spread / 10, 2 * spread - 1)
    wrong = torch.rand(count, generator=draw, dtype=torch.float64) < true
    stated = torch.sigmoid(torch.logit(true.clamp(1e-4, 1 - 1e-4)) * bend + shift)
    return stated, wrong, torch.rand(count, generator=draw)


def first(order: Tensor, count: int) -> Tensor:
    asked = torch.zeros(len(order), dtype=torch.bool)
    asked[order[:count]] = True
    return asked


def around(p: Tensor, reach: float = 0.15) -> RateInterval:
    mean = float(p.mean())
    return RateInterval(mean, max(mean - reach, 0.0), min(mean + reach, 1.0))


def estimate(p: Tensor, wrong: Tensor, asked: Tensor, reach: float = 0.15) -> DecidedRate:
    return rate_with_decisions(p, p, asked, wrong, asked, around(p[~asked] if bool((~asked).any()) else p, reach))


def written_out(
    chance: list[float], p: list[float], asked: list[bool], wrong: list[bool], known: list[bool], model: RateInterval
) -> tuple[list[float], list[float]]:
    """The formula label by label: value, low and high, now and before."""
    part = [i for i in range(len(p)) if asked[i] or not known[i]]
    ranked = sorted(chance[i] for i in part)
    edges = [ranked[k * len(part) // STRATA] for k in range(1, STRATA)]
    value = below = above = variance = 0.0
    for s in range(STRATA):
        members = [i for i in part if sum(chance[i] >= edge for edge in edges) == s]
        decided, left = [i for i in members if asked[i]], [i for i in members if not asked[i]]
        if len(decided) < LEAST or not left:
            expected = sum(p[i] for i in left)
            value += expected
            below += expected * (1 - model.low / model.value)
            above += sum(1 - p[i] for i in left) * (1 - (1 - model.high) / (1 - model.value))
            continue
        residuals = [wrong[i] - chance[i] for i in decided]
        mean = sum(residuals) / len(decided)
        # N_s [mean of p over all + mean residual] - those found wrong = what is left among the others
        whole = sum(chance[i] for i in members) + len(members) * mean - sum(wrong[i] for i in decided)
        value += min(max(whole, 0.0), len(left))
        squares = sum((each - mean) ** 2 for each in residuals) + SAMPLING**2 / 4
        spread = squares / (len(decided) - 1 + SAMPLING**2)
        variance += len(members) ** 2 * spread / len(decided) * (1 - len(decided) / len(members))
    found, openings = sum(wrong[i] for i in part if asked[i]), sum(not asked[i] for i in part)
    error = SAMPLING * math.sqrt(variance)
    ends = [value, value - math.hypot(below, error), value + math.hypot(above, error)]
    ends = [min(max(end, 0.0), openings) for end in ends]
    return [end / len(p) for end in ends], [(end + found) / len(part) for end in ends]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_is_written_out(seed: int) -> None:
    chance, wrong, draws = world(seed, 300, bend=1.5, shift=-0.5)
    p = (chance * 0.9 + 0.02).clamp(max=1)
    asked = first((-chance).argsort() if seed % 2 else draws.argsort(), 20 + 15 * seed)
    known = asked | (draws > 0.95)  # some are known from the start, and no part of the sample
    model = RateInterval(0.3, 0.12, 0.5)
    found = rate_with_decisions(chance, p, asked, wrong, known, model)
    now, before = written_out(chance.tolist(), p.tolist(), asked.tolist(), wrong.tolist(), known.tolist(), model)
    assert list(found.now) == pytest.approx(now, abs=1e-9)
    assert list(found.before) == pytest.approx(before, abs=1e-9)


def test_without_decisions_it_is_the_model() -> None:
    p, wrong, _ = world(0)
    none, model = torch.zeros(len(p), dtype=torch.bool), around(p)
    found = estimate(p, wrong, none)
    assert list(found.now) == pytest.approx(list(model)) and list(found.before) == pytest.approx(list(model))
    few = first(torch.arange(len(p)), LEAST - 1)  # too few in any stratum: only they are known
    found = estimate(p, wrong, few)
    assert found.now.value == pytest.approx(float(p[~few].sum()) / len(p))


def test_where_all_is_decided_nothing_is_estimated() -> None:
    p, wrong, _ = world(1)
    found = estimate(p, wrong, torch.ones(len(p), dtype=torch.bool))
    share = float(wrong.double().mean())
    assert found == DecidedRate(RateInterval(0, 0, 0), RateInterval(share, share, share), 0)
    empty = torch.zeros(0)
    nothing = rate_with_decisions(empty, empty, empty > 0, empty > 0, empty > 0, RateInterval(0, 0, 0))
    assert nothing.now == RateInterval(0, 0, 0) and nothing.more == 0


def test_equal_chances_are_one_stratum() -> None:
    assert strata_of(torch.full((50,), 0.3)).unique().numel() == 1
    assert strata_of(torch.rand(1000, generator=torch.Generator().manual_seed(0))).bincount().tolist() == [200] * 5


Order = Callable[[Tensor, Tensor], Tensor]
ORDERS: dict[str, Order] = {
    "worst first": lambda p, draws: (-p).argsort(),
    "random": lambda p, draws: draws.argsort(),
    "informative": informative_order,
}


@pytest.mark.parametrize(
    ("name", "bend", "shift", "count"),
    [
        ("worst first", 1.0, 0.0, 100), ("random", 1.0, 0.0, 100), ("informative", 1.0, 0.0, 100),
        ("random", 1.0, -2.0, 100), ("random", 0.3, 1.0, 100), ("informative", 3.0, 0.0, 150),
        ("informative", 1.0, 2.0, 150), ("random", -1.0, 0.0, 150),
    ],
)  # fmt: skip
def test_unbiased_and_the_interval_covers(name: str, bend: float, shift: float, count: int) -> None:
    """Also where the model is badly calibrated: all chances too low, too even, too sure, too high or the reverse."""
    errors, covered, stated = [], 0, []
    for seed in range(DRAWS):
        p, wrong, draws = world(seed, bend=bend, shift=shift)
        truth = float(wrong.double().mean())
        found = estimate(p, wrong, first(ORDERS[name](p, draws), count)).before
        errors.append(found.value - truth)
        stated.append(float(p.mean()) - truth)
        covered += found.low <= truth <= found.high
    off = torch.tensor(errors)
    assert abs(float(off.mean())) < 0.012, "the model alone would be off by " + str(sum(stated) / DRAWS)
    assert covered >= 0.85 * DRAWS


def test_worst_first_and_then_at_random_repairs_a_bad_model() -> None:
    errors, covered = [], 0
    for seed in range(DRAWS):
        p, wrong, draws = world(seed, shift=-2.0)
        worst = first((-p).argsort(), 100)
        found = estimate(p, wrong, worst | first(draws.masked_fill(worst, 2.0).argsort(), 100)).before
        truth = float(wrong.double().mean())
        errors.append(found.value - truth)
        covered += found.low <= truth <= found.high
    assert abs(sum(errors) / DRAWS) < 0.02 and covered >= 0.85 * DRAWS  # the model alone is off by 0.15


def test_decisions_narrow_the_interval_and_the_number_that_is_missing_is_about_right() -> None:
    p, wrong, draws = world(3, 2000)
    order = draws.argsort()
    start = estimate(p, wrong, first(order, 0))
    r = start.now.value
    plain = r * (1 - r) * (SAMPLING / NARROW) ** 2
    assert start.more == pytest.approx(plain / (1 + plain / 2000), rel=0.05)  # finite population
    half = [estimate(p, wrong, first(order, count)) for count in (50, 100, 200, 400)]
    widths = [found.now.high - found.now.low for found in half]
    assert widths == sorted(widths, reverse=True) and widths[0] < start.now.high - start.now.low
    needed = 100 + half[1].more
    assert needed < start.more  # since the model tells much of each label
    then = estimate(p, wrong, first(order, needed)).now
    assert (then.high - then.low) / 2 == pytest.approx(NARROW, abs=0.006)
    assert half[-1].more == 0 and half[-1].now.high - half[-1].now.low <= 2 * NARROW


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.31, 0.9, 1.0])
def test_chances_are_moved_to_a_rate_and_keep_their_order(rate: float) -> None:
    p = world(5)[0]
    moved = at_rate(p, rate)
    assert float(moved.mean()) == pytest.approx(rate, abs=1e-9)
    assert bool((moved >= 0).all()) and bool((moved <= 1).all())
    assert bool((moved[p.argsort()].diff() >= -1e-12).all())
    assert len(at_rate(torch.zeros(0), rate)) == 0


def test_no_beginning_of_the_informative_order_could_be_shared_out_much_better() -> None:
    chance = torch.tensor([0.01] * 40 + [0.1] * 40 + [0.5] * 40 + [0.9] * 40 + [0.99] * 40, dtype=torch.float64)
    order = informative_order(chance, torch.rand(200, generator=Generator().manual_seed(0)))
    assert sorted(order.tolist()) == list(range(200))
    spread = [p * (1 - p) + 0.01 for p in (0.01, 0.1, 0.5, 0.9, 0.99)]

    def variance(counts: tuple[int, ...]) -> float:
        return sum(s / n for s, n in zip(spread, counts, strict=True))

    for count in (10, 14, 20, 25):
        counts = tuple(strata_of(chance)[order[:count]].bincount(minlength=STRATA).tolist())
        best = min(
            variance((*four, count - sum(four)))
            for four in itertools.product(range(1, count), repeat=4) if sum(four) < count
        )  # fmt: skip
        assert min(counts) > 0 and variance(counts) <= 1.15 * best
    assert counts[2] > 2 * counts[0]


def test_the_informative_order_needs_fewer_decisions_than_chance() -> None:
    def error(order: Order) -> float:
        total = 0.0
        for seed in range(DRAWS):
            p, wrong, draws = world(seed)
            found = estimate(p, wrong, first(order(p, draws), 80))
            total += (found.before.value - float(wrong.double().mean())) ** 2
        return total / DRAWS

    assert error(informative_order) < 0.85 * error(ORDERS["random"])


def test_a_stratum_in_which_all_is_as_the_model_says_has_an_interval_all_the_same() -> None:
    p = torch.full((1000,), 1e-6)
    found = estimate(p, torch.zeros(1000, dtype=torch.bool), first(torch.arange(1000), 30), reach=0.3)
    assert found.now.value < 1e-4 and 0.02 < found.now.high < 0.1
