"""Every loss against a slow loop in plain Python, and against numbers worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scanmix.blocks.losses import (
    confidence_penalty,
    nt_xent,
    nt_xent_one_way,
    prior_penalty,
    probability_mse,
    scan_loss,
    semi_supervised_loss,
    semi_supervised_losses,
    soft_cross_entropy,
)

SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 5))
SEEDS = st.integers(0, 2**31)


def made_logits(shape: tuple[int, int], seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made_probs(shape: tuple[int, int], seed: int) -> Tensor:
    return made_logits(shape, seed, 1.0).softmax(1)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def probabilities(logits: Tensor) -> list[list[float]]:
    return [softmax(row) for row in logits.tolist()]


def mean_row(rows: list[list[float]]) -> list[float]:
    return [sum(row[c] for row in rows) / len(rows) for c in range(len(rows[0]))]


def slow_soft_cross_entropy(logits: Tensor, targets: Tensor) -> float:
    total = 0.0
    for probs, target in zip(probabilities(logits), targets.tolist(), strict=True):
        for p, t in zip(probs, target, strict=True):
            total -= t * math.log(p)
    return total / len(logits)


def slow_probability_mse(logits: Tensor, targets: Tensor) -> float:
    total, count = 0.0, 0
    for probs, target in zip(probabilities(logits), targets.tolist(), strict=True):
        for p, t in zip(probs, target, strict=True):
            total, count = total + (p - t) ** 2, count + 1
    return total / count


def slow_prior_penalty(logits: Tensor, prior: list[float]) -> float:
    mean = mean_row(probabilities(logits))
    return sum(q * math.log(q / p) for q, p in zip(prior, mean, strict=True) if q > 0)


def slow_scan_loss(anchor: Tensor, neighbor: Tensor, weight: float) -> tuple[float, float, float]:
    first, second = probabilities(anchor), probabilities(neighbor)
    consistency = 0.0
    for p, q in zip(first, second, strict=True):
        dot = sum(x * y for x, y in zip(p, q, strict=True))
        consistency -= (max(math.log(dot), -100.0) if dot > 0 else -100.0) / len(first)
    entropy = -sum(p * math.log(max(p, 1e-8)) for p in mean_row(first))
    return consistency - weight * entropy, consistency, entropy


def slow_nt_xent_one_way(anchors: Tensor, positives: Tensor, temperature: float) -> float:
    """The denominator holds every embedding of both views but the anchor's own: 2B - 1 terms."""
    a, p = anchors.tolist(), positives.tolist()

    def similarity(x: list[float], y: list[float]) -> float:
        return sum(u * v for u, v in zip(x, y, strict=True)) / temperature

    total = 0.0
    for i, anchor in enumerate(a):
        others = [a[j] for j in range(len(a)) if j != i] + p
        denominator = sum(math.exp(similarity(anchor, other)) for other in others)
        total -= similarity(anchor, p[i]) - math.log(denominator)
    return total / len(a)


@given(SHAPES, SEEDS)
def test_soft_cross_entropy_is_the_slow_one(shape: tuple[int, int], seed: int) -> None:
    logits, targets = made_logits(shape, seed), made_probs(shape, seed + 1)
    assert float(soft_cross_entropy(logits, targets)) == pytest.approx(slow_soft_cross_entropy(logits, targets))


@given(SHAPES, SEEDS)
def test_probability_mse_is_the_slow_one(shape: tuple[int, int], seed: int) -> None:
    logits, targets = made_logits(shape, seed), made_probs(shape, seed + 1)
    assert float(probability_mse(logits, targets)) == pytest.approx(slow_probability_mse(logits, targets))


@given(SHAPES, SEEDS)
def test_prior_penalty_is_the_slow_one(shape: tuple[int, int], seed: int) -> None:
    logits, classes = made_logits(shape, seed), shape[1]
    prior = made_probs((1, classes), seed + 1)[0]
    uniform = [1 / classes] * classes
    assert float(prior_penalty(logits)) == pytest.approx(slow_prior_penalty(logits, uniform), abs=1e-9)
    expected = slow_prior_penalty(logits, prior.tolist())
    assert float(prior_penalty(logits, prior)) == pytest.approx(expected, abs=1e-9)


def test_prior_penalty_takes_a_class_that_never_occurs() -> None:
    logits = made_logits((5, 3), 0)
    prior = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    assert float(prior_penalty(logits, prior)) == pytest.approx(slow_prior_penalty(logits, [0.7, 0.3, 0.0]))


@given(SHAPES, SEEDS)
def test_prior_penalty_is_never_negative_and_zero_at_the_prior(shape: tuple[int, int], seed: int) -> None:
    logits = made_logits(shape, seed)
    assert float(prior_penalty(logits)) >= -1e-12
    assert float(prior_penalty(logits, logits.softmax(1).mean(0))) == pytest.approx(0, abs=1e-9)


@given(SHAPES, SEEDS)
def test_confidence_penalty_is_the_slow_one(shape: tuple[int, int], seed: int) -> None:
    logits = made_logits(shape, seed)
    slow = sum(p * math.log(p) for row in probabilities(logits) for p in row) / shape[0]
    assert float(confidence_penalty(logits)) == pytest.approx(slow)


@given(SHAPES, SEEDS, st.floats(0, 10))
def test_scan_loss_is_the_slow_one(shape: tuple[int, int], seed: int, weight: float) -> None:
    anchor, neighbor = made_logits(shape, seed), made_logits(shape, seed + 1)
    got = [float(part) for part in scan_loss(anchor, neighbor, weight)]
    assert got == pytest.approx(slow_scan_loss(anchor, neighbor, weight))


@given(st.integers(1, 6), st.integers(1, 5), SEEDS, st.floats(0.05, 2))
def test_nt_xent_is_the_slow_one(count: int, size: int, seed: int, temperature: float) -> None:
    first = torch.nn.functional.normalize(made_logits((count, size), seed), dim=1)
    second = torch.nn.functional.normalize(made_logits((count, size), seed + 1), dim=1)
    forth = slow_nt_xent_one_way(first, second, temperature)
    back = slow_nt_xent_one_way(second, first, temperature)
    assert float(nt_xent_one_way(first, second, temperature)) == pytest.approx(forth, abs=1e-9)
    assert float(nt_xent(first, second, temperature)) == pytest.approx((forth + back) / 2, abs=1e-9)


@given(SHAPES, SEEDS, st.floats(0, 30), st.floats(0, 3), st.integers(1, 6), st.booleans())
def test_semi_supervised_loss_is_the_sum_of_its_parts(
    shape: tuple[int, int], seed: int, unlabeled: float, prior: float, labeled: int, given_prior: bool
) -> None:
    logits, targets = made_logits(shape, seed), made_probs(shape, seed + 1)
    labeled = min(labeled, shape[0])  # equal: no unlabeled rows
    uniform = [1 / shape[1]] * shape[1]
    wanted = made_probs((1, shape[1]), seed + 2)[0] if given_prior else None
    parts = (
        slow_soft_cross_entropy(logits[:labeled], targets[:labeled]),
        slow_probability_mse(logits[labeled:], targets[labeled:]) if labeled < shape[0] else 0.0,
        slow_prior_penalty(logits, uniform if wanted is None else wanted.tolist()),
    )
    total = parts[0] + unlabeled * parts[1] + prior * parts[2]
    got = semi_supervised_loss(logits, targets, labeled, unlabeled, prior, wanted)
    assert [float(part) for part in got] == pytest.approx([total, *parts], abs=1e-9)


def test_losses_on_fixed_tensors_are_the_numbers_worked_out_by_hand() -> None:
    """Predictions p1 = (1/2, 1/4, 1/4), p2 = (1/5, 3/10, 1/2); targets t1 = (1, 0, 0), t2 = (0, 1/2, 1/2).

    soft cross-entropy: (ln 2 + (ln 10/3 + ln 2)/2) / 2 = (0.6931472 + 0.9485600) / 2.
    mean squared error: ((1/4 + 1/16 + 1/16) + (1/25 + 1/25 + 0)) / 6 = 0.455 / 6.
    mean prediction (0.35, 0.275, 0.375): KL(1/3 || mean) = (ln(1/1.05) + ln(1/0.825) + ln(1/1.125)) / 3;
    KL((1/2, 1/2, 0) || mean) = (ln(0.5/0.35) + ln(0.5/0.275)) / 2.
    negative entropy: (-(3/2) ln 2 + 0.2 ln 0.2 + 0.3 ln 0.3 + 0.5 ln 0.5) / 2.
    """
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]).log()
    targets = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    assert float(soft_cross_entropy(logits, targets)) == pytest.approx(0.8208536, abs=1e-6)
    assert float(probability_mse(logits, targets)) == pytest.approx(0.0758333, abs=1e-6)
    assert float(prior_penalty(logits)) == pytest.approx(0.0085996, abs=1e-6)
    assert float(prior_penalty(logits, torch.tensor([0.5, 0.5, 0]))) == pytest.approx(0.4772560, abs=1e-6)
    assert float(confidence_penalty(logits)) == pytest.approx(-1.0346867, abs=1e-6)
    # First row labeled: ln 2, second not: 0.08 / 3; total = 0.6931472 + 3 * 0.0266667 + 2 * 0.0085996.
    got = [float(part) for part in semi_supervised_loss(logits, targets, 1, 3.0, 2.0)]
    assert got == pytest.approx([0.7903464, 0.6931472, 0.0266667, 0.0085996], abs=1e-6)


def test_scan_loss_on_fixed_tensors_is_the_number_worked_out_by_hand() -> None:
    """Anchors (0.8, 0.2), (0.4, 0.6); neighbors (0.5, 0.5), (0.1, 0.9).

    Products: 0.5 and 0.04 + 0.54 = 0.58; consistency = (ln 2 - ln 0.58) / 2 = (0.6931472 + 0.5447272) / 2.
    Mean anchor (0.6, 0.4): entropy = -0.6 ln 0.6 - 0.4 ln 0.4 = 0.3064954 + 0.3665163.
    """
    anchor = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log()
    neighbor = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log()
    got = [float(part) for part in scan_loss(anchor, neighbor, 5.0)]
    assert got == pytest.approx([0.6189372 - 5 * 0.6730117, 0.6189372, 0.6730117], abs=1e-6)


def test_nt_xent_on_fixed_tensors_is_the_number_worked_out_by_hand() -> None:
    """First views (1, 0), (0, 1); second views (0.6, 0.8), (0.8, -0.6); temperature 1/2.

    Anchor 1 sees 0 (other first view), 1.2 (its partner), 1.6: ln(1 + e^1.2 + e^1.6) - 1.2 = 1.0271231.
    Anchor 2 sees 0, 1.6, -1.2 (its partner): ln(1 + e^1.6 + e^-1.2) + 1.2 = 3.0332575.
    """
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[0.6, 0.8], [0.8, -0.6]])
    assert float(nt_xent_one_way(first, second, 0.5)) == pytest.approx(2.0301903, abs=1e-6)
    # Nearer first views are only in the denominator of the way that starts from them.
    near = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    # Forth: ln(e^1.6 + e^1.2 + e^1.6) - 1.2 and ln(e^1.6 + e^1.92 + e^0.56) - 0.56.
    # Back: ln(e^0 + e^1.2 + e^1.92) - 1.2 and ln(e^0 + e^0.56 + e^1.6) - 0.56.
    assert float(nt_xent_one_way(near, second, 0.5)) == pytest.approx((1.3821983 + 2.0445149) / 2, abs=1e-6)
    assert float(nt_xent(near, second, 0.5)) == pytest.approx(
        (1.3821983 + 2.0445149 + 1.2106388 + 1.4817014) / 4, abs=1e-6
    )


LOSSES: list[Callable[[Tensor], Tensor]] = [
    lambda logits: soft_cross_entropy(logits, torch.eye(3).roll(1, 1)),
    lambda logits: probability_mse(logits, torch.eye(3).roll(1, 1)),
    prior_penalty,
    confidence_penalty,
    lambda logits: scan_loss(logits, logits.roll(1, 0), 5.0)[0],
    lambda logits: semi_supervised_loss(logits, torch.eye(3), 3, 25.0, 1.0)[0],
    lambda logits: semi_supervised_loss(logits, torch.eye(3), 1, 25.0, 1.0)[0],
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("columns", [[0, 1, 2], [0, 0, 0]])
def test_certain_predictions_give_finite_losses_and_gradients(
    loss: Callable[[Tensor], Tensor], columns: list[int]
) -> None:
    logits = (1000 * torch.eye(3)[columns]).requires_grad_()
    value = loss(logits)
    torch.autograd.backward(value)
    assert logits.grad is not None
    assert bool(value.isfinite()) and bool(logits.grad.isfinite().all())


def test_scan_loss_stops_at_the_logarithm_of_binary_cross_entropy() -> None:
    anchor, neighbor = 1000 * torch.tensor([[1.0, 0.0]]), 1000 * torch.tensor([[0.0, 1.0]])
    _, consistency, entropy = scan_loss(anchor, neighbor, 5.0)
    assert float(consistency) == 100.0
    assert float(entropy) == pytest.approx(0.0, abs=1e-6)
    # Each example stops by itself: one hopeless pair and one perfect pair make 50.
    pairs = torch.cat([anchor, neighbor]), torch.cat([neighbor, neighbor])
    assert float(scan_loss(*pairs, 0.0)[1]) == pytest.approx(50.0)


def test_scan_entropy_has_its_floor_inside_the_logarithm() -> None:
    tiny = torch.tensor([[math.log(1 - 1e-12), math.log(1e-12)]], dtype=torch.float64)
    entropy = float(scan_loss(tiny, tiny, 0.0)[2])
    assert entropy == pytest.approx(1e-12 - 1e-12 * math.log(1e-8), rel=1e-3)


def test_prior_penalty_has_its_floor_inside_the_logarithm() -> None:
    certain = 1000 * torch.tensor([[1.0, 0.0]])
    # KL((1/2, 1/2) || (1, 1e-8)) = ln(1/2) - (ln 1 + ln 1e-8) / 2.
    assert float(prior_penalty(certain)) == pytest.approx(math.log(0.5) - math.log(1e-8) / 2, rel=1e-6)


def test_scan_loss_rewards_spreading_over_clusters() -> None:
    spread, together = 5 * torch.eye(3), 5 * torch.eye(3)[[0, 0, 0]]
    assert float(scan_loss(spread, spread, 5.0)[0]) < float(scan_loss(together, together, 5.0)[0])
    assert float(scan_loss(spread, spread, 0.0)[0]) == pytest.approx(float(scan_loss(together, together, 0.0)[0]))


def test_no_unlabeled_rows_leave_their_weight_without_effect() -> None:
    logits, targets = made_logits((4, 3), 0), made_probs((4, 3), 1)
    light, heavy = (semi_supervised_loss(logits, targets, 4, weight, 1.0) for weight in (0.0, 1e9))
    assert float(light[0]) == float(heavy[0])
    assert float(heavy[2]) == 0.0


@pytest.mark.parametrize("num_labeled", [3, 7])
def test_weighted_rows_of_the_semi_supervised_loss(num_labeled: int) -> None:
    """Slow: row by row. Weights of 1 change nothing."""
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(7, 4, generator=draws), torch.rand(7, 4, generator=draws).softmax(1)
    weights = torch.rand(7, generator=draws)
    rows = [
        float(-(targets[i] * logits[i].log_softmax(0)).sum() if i < num_labeled
              else sum((logits[i].softmax(0) - targets[i]) ** 2) / 4)
        for i in range(7)
    ]  # fmt: skip
    assert semi_supervised_losses(logits, targets, num_labeled).tolist() == pytest.approx(rows, abs=1e-5)
    found = semi_supervised_loss(logits, targets, num_labeled, 5.0, 1.0, weights=weights)
    assert float(found.labeled) == pytest.approx(
        sum(float(weights[i]) * rows[i] for i in range(num_labeled)) / num_labeled
    )
    rest = sum(float(weights[i]) * rows[i] for i in range(num_labeled, 7)) / max(1, 7 - num_labeled)
    assert float(found.unlabeled) == pytest.approx(rest, abs=1e-6)
    plain = semi_supervised_loss(logits, targets, num_labeled, 5.0, 1.0)
    ones = semi_supervised_loss(logits, targets, num_labeled, 5.0, 1.0, weights=torch.ones(7))
    assert all(torch.allclose(one, other) for one, other in zip(plain, ones, strict=True))
