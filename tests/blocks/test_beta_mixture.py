"""The Beta mixture on losses."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scanmix.blocks.beta_mixture import EDGE, fit_beta_mixture
from scanmix.blocks.divide import clean_probability


def slow_fit(losses: np.ndarray) -> tuple[list[tuple[float, float]], list[float]]:
    """Ten rounds of EM, point by point, with scipy's density."""
    from scipy.stats import beta

    low, high = np.quantile(losses, [0.05, 0.95])
    points = np.clip((losses[(losses >= low) & (losses <= high)] - low) / (high - low), EDGE, 1 - EDGE)
    shapes, weights = [(1.0, 2.0), (2.0, 1.0)], [0.5, 0.5]
    for _ in range(10):
        shares = []
        for x in points:
            joint = [weight * beta.pdf(x, *shape) for weight, shape in zip(weights, shapes, strict=True)]
            shares.append([value / sum(joint) for value in joint])
        table = np.array(shares)
        shapes = []
        for k in range(2):
            mean = np.average(points, weights=table[:, k])
            variance = np.average((points - mean) ** 2, weights=table[:, k])
            a = mean * (mean * (1 - mean) / variance - 1)
            shapes.append((a, a * (1 - mean) / mean))
        weights = list(table.mean(0))
    return shapes, weights


def made(wrong_share: float = 0.4, count: int = 400) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    wrong = rng.random(count) < wrong_share
    losses = np.where(wrong, 3 * rng.beta(6, 3, count), 3 * rng.beta(2, 8, count))
    return torch.tensor(losses, dtype=torch.float32), torch.tensor(wrong)


def test_the_table_is_the_posterior_of_a_slow_fit() -> None:
    from scipy.stats import beta

    losses, _ = made()
    found = fit_beta_mixture(losses)
    shapes, weights = slow_fit(losses.double().numpy())
    centers = (np.arange(100) + 0.5) / 100
    joint = np.stack([weight * beta.pdf(centers, *shape) for weight, shape in zip(weights, shapes, strict=True)])
    posterior = joint[1] / joint.sum(0)
    top = int(posterior.argmax())
    posterior[top:] = posterior[top]
    assert found.table.numpy() == pytest.approx(posterior, abs=1e-4)


def test_it_tells_wrong_labels_from_right_ones_and_agrees_with_the_gaussians() -> None:
    losses, wrong = made()
    noisy = fit_beta_mixture(losses)(losses)
    assert float(((noisy > 0.5) == wrong).float().mean()) > 0.93
    assert float(((noisy > 0.5) == (clean_probability(losses) < 0.5)).float().mean()) > 0.9
    assert float(noisy.mean()) == pytest.approx(float(wrong.float().mean()), abs=0.1)


def test_beyond_its_largest_value_the_posterior_stays() -> None:
    losses, _ = made()
    noisy = fit_beta_mixture(losses)
    top = int(noisy.table.argmax())
    assert bool((noisy.table[top:] == noisy.table.max()).all())
    assert float(noisy(torch.tensor([1e6]))) == float(noisy.table.max())
    assert float(noisy(torch.tensor([-1e6]))) == float(noisy.table[0])


def test_the_component_of_large_losses_is_the_noisy_one_wherever_most_losses_are() -> None:
    for share in (0.1, 0.9):
        losses, wrong = made(share, 2000)
        noisy = fit_beta_mixture(losses)(losses)
        assert float(noisy[wrong].mean()) > float(noisy[~wrong].mean()) + 0.4


@pytest.mark.parametrize("losses", [torch.zeros(10), torch.full((3,), 2.0), torch.tensor([1.0])])
def test_losses_that_are_alike_accuse_nobody(losses: Tensor) -> None:
    assert fit_beta_mixture(losses)(losses).tolist() == [0.0] * len(losses)


def test_few_losses_give_numbers() -> None:
    for losses in (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0, 0.0, 5.0]), torch.rand(4)):
        noisy = fit_beta_mixture(losses)(losses)
        assert bool(((noisy >= 0) & (noisy <= 1)).all())
