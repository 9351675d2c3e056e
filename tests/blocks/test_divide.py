"""Clean or noisy: against a direct fit of scikit-learn, by its properties, and with nothing to go by."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from scanmix.blocks.divide import clean_probabilities, clean_probability, divide, noise_rate, normalize_losses

LOSSES = st.lists(st.floats(0, 20, width=32), min_size=2, max_size=40)


def two_groups(clean: int, noisy: int, seed: int = 0, spread: float = 0.3) -> Tensor:
    """Losses near 0.5 and near 4, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    losses = torch.cat(
        [
            0.5 + spread * torch.randn(clean, generator=generator).abs(),
            4 + 2 * spread * torch.randn(noisy, generator=generator),
        ]
    )
    return losses[torch.randperm(clean + noisy, generator=generator)]


def slow_posterior(losses: Tensor, tol: float = 1e-2, max_iter: int = 10) -> tuple[list[float], int]:
    """DivideMix's mixture, its two densities by hand; also where scikit-learn put the low component."""
    low, high = float(losses.min()), float(losses.max())
    scaled = [(float(loss) - low) / (high - low) for loss in losses]
    mixture = GaussianMixture(2, max_iter=max_iter, tol=tol, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit([[value] for value in scaled])
    means, variances = mixture.means_.ravel().tolist(), mixture.covariances_.ravel().tolist()
    clean = means.index(min(means))

    def density(value: float, part: int) -> float:
        exponent = -((value - means[part]) ** 2) / (2 * variances[part])
        return float(mixture.weights_[part]) * math.exp(exponent) / math.sqrt(variances[part])

    posterior = []
    for value in scaled:
        value = min(max(value, min(means)), max(means))
        posterior.append(density(value, clean) / (density(value, 0) + density(value, 1)))
    return posterior, clean


@pytest.mark.parametrize("sizes", [(80, 20), (50, 50), (20, 80), (190, 10)])
@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
def test_posterior_is_that_of_a_direct_fit(sizes: tuple[int, int], spread: float) -> None:
    for seed in range(3):
        losses = two_groups(*sizes, seed=seed, spread=spread)
        expected, _ = slow_posterior(losses)
        got = clean_probability(losses)
        assert got.dtype == torch.float32 and got.shape == losses.shape
        assert got.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_fit_stops_where_dividemix_stops() -> None:
    """On one long tail the mixture goes on moving: ten iterations, or a gain below 0.01, are part of the method."""
    losses = -torch.rand(300, generator=torch.Generator().manual_seed(0)).log()
    stricter, longer = slow_posterior(losses, tol=1e-9)[0], slow_posterior(losses, tol=1e-9, max_iter=100)[0]
    for tol, other in ((1e-2, stricter), (1e-9, longer)):
        expected, _ = slow_posterior(losses, tol=tol)
        assert max(abs(p - q) for p, q in zip(expected, other, strict=True)) > 0.01, "the data should tell"
        assert clean_probability(losses, tol=tol).tolist() == pytest.approx(expected, abs=1e-4)
    assert clean_probability(losses).tolist() == pytest.approx(slow_posterior(losses)[0], abs=1e-4)


def test_the_low_component_is_found_whichever_comes_first() -> None:
    """Clean is the lower mean; scikit-learn numbers its components as it likes."""
    places = set()
    for seed in range(12):
        losses = two_groups(30, 30, seed=seed)
        places.add(slow_posterior(losses)[1])
        p_clean = clean_probability(losses)
        assert bool((p_clean[losses < 2] > 0.5).all()) and bool((p_clean[losses > 2] < 0.5).all())
    assert places == {0, 1}, "the made data should cover both orders"


@given(LOSSES)
def test_p_clean_is_a_probability_and_never_rises_with_the_loss(values: list[float]) -> None:
    losses = torch.tensor(values)
    p_clean = clean_probability(losses)
    assert bool(((p_clean >= 0) & (p_clean <= 1)).all())
    assert bool((p_clean[losses.argsort()].diff() <= 1e-6).all())


def test_a_wide_noisy_component_does_not_win_the_smallest_losses_back() -> None:
    """Nine in ten noisy and widely spread: without the guard the very smallest losses come out as noisy."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.cat([1 + 0.01 * torch.randn(50, generator=generator), 5 * torch.rand(50, generator=generator)])
    losses[-1] = 0.0
    p_clean = clean_probability(losses)
    assert float(p_clean[-1]) == float(p_clean.max())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scale_and_place_of_the_losses_do_not_matter(scale: float) -> None:
    losses = two_groups(40, 40)
    moved = clean_probability(losses.double() * scale + 7)
    assert moved.tolist() == pytest.approx(clean_probability(losses).tolist(), abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_counts_as_the_largest(bad: float) -> None:
    losses = two_groups(20, 20)
    worst = int(losses.argmax())
    broken = losses.clone()
    broken[3] = bad
    patched = losses.clone()
    patched[3] = losses[worst] if worst != 3 else losses[torch.arange(40) != 3].max()
    assert torch.equal(clean_probability(broken), clean_probability(patched))


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [3.0],
        [2.0, 2.0, 2.0],
        [0.0] * 5,
        [math.nan] * 4,
        [math.inf] * 4,
        [1.0, math.nan, 1.0],
        [1.0, 1.0 + 1e-9, 1.0],
    ],
)
def test_where_nothing_differs_everything_is_clean(losses: list[float]) -> None:
    assert clean_probability(torch.tensor(losses)).tolist() == [1.0] * len(losses)


def test_two_points_are_one_clean_and_one_noisy() -> None:
    first, second = clean_probability(torch.tensor([5.0, 1.0])).tolist()
    assert second > 0.99 and first < 0.01


def test_fitting_does_not_touch_the_global_generators() -> None:
    before = torch.get_rng_state()
    first, second = (clean_probability(two_groups(10, 10)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20))
def test_normalize_is_the_slow_one(values: list[float]) -> None:
    low, high = min(values), max(values)
    expected = [(v - low) / (high - low) if high - low > 1e-6 else 0.0 for v in values]
    assert normalize_losses(torch.tensor(values).double()).tolist() == pytest.approx(expected, abs=1e-9)


def test_normalize_puts_what_is_no_number_at_the_top() -> None:
    losses = torch.tensor([2.0, math.nan, 4.0, math.inf, 3.0, -math.inf])
    assert normalize_losses(losses).tolist() == [0.0, 1.0, 1.0, 1.0, 0.5, 1.0]


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), max_size=12), st.integers(1, 14))
def test_divide_is_the_slow_one(values: list[float], minimum: int) -> None:
    threshold = 0.5
    above = [value > threshold for value in values]
    if sum(above) < minimum:
        ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))[:minimum]
        above = [i in ranked for i in range(len(values))]
    clean = divide(torch.tensor(values), threshold, minimum)
    assert clean.dtype == torch.bool and clean.tolist() == above


def test_divide_is_strict_and_never_leaves_the_clean_side_empty() -> None:
    assert divide(torch.tensor([0.5, 0.6, 0.4]), 0.5).tolist() == [False, True, False]
    assert divide(torch.tensor([0.2, 0.1, 0.3]), 0.5).tolist() == [False, False, True]
    assert divide(torch.tensor([0.3, 0.3, 0.3]), 0.5, 2).tolist() == [True, True, False]
    assert divide(torch.tensor([0.3, 0.9]), 0.5, 5).tolist() == [True, True]
    assert divide(torch.tensor([]), 0.5).tolist() == []


def test_divide_breaks_ties_by_the_smaller_index_in_long_rows_too() -> None:
    assert divide(torch.zeros(5000), 0.5, 7).nonzero().ravel().tolist() == list(range(7))


def test_noise_rate_is_the_share_of_the_noisy_set_over_both_peers() -> None:
    p_clean = torch.tensor([[0.9, 0.5, 0.1, 0.2], [0.8, 0.6, 0.7, 0.5]])
    assert noise_rate(p_clean, 0.5) == 4 / 8  # exactly the threshold is noisy
    assert noise_rate(p_clean, 0.0) == 0.0


def test_every_peer_has_a_mixture_of_its_own() -> None:
    losses = torch.stack([two_groups(30, 50, seed=1), two_groups(60, 20, seed=2)])
    found = clean_probabilities(losses)
    for row, expected in zip(found, losses, strict=True):
        torch.testing.assert_close(row, clean_probability(expected))
    assert [int(count) for count in (found > 0.5).sum(1)] == [30, 60]


def test_a_hard_class_keeps_its_right_labels_where_each_class_has_a_mixture() -> None:
    """Class 1 is hard: its right labels cost what the wrong ones of class 0 do."""
    easy, hard = two_groups(600, 200, seed=3), 4 + two_groups(60, 20, seed=4)
    losses, labels = torch.cat([easy, hard]), (torch.arange(880) >= 800).long()
    mixed = torch.randperm(880, generator=torch.Generator().manual_seed(0))
    found = clean_probabilities(losses[mixed].expand(2, -1), labels[mixed])
    right = torch.cat([easy < 2, hard < 6])[mixed]
    assert torch.equal(found[0] > 0.5, right) and torch.equal(found[0], found[1])
    assert not (clean_probabilities(losses.unsqueeze(0))[0, 800:] > 0.5).any(), "one mixture for all gives it up"


def test_a_class_without_examples_or_with_one_is_no_obstacle() -> None:
    losses, labels = two_groups(20, 20), torch.tensor([2] * 39 + [5])
    assert clean_probabilities(losses.unsqueeze(0), labels)[0, 39] == 1
