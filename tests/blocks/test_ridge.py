"""Ridge regression with each label left out, against regressions that were fitted without it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import scanmix.blocks.ridge as module
from scanmix.blocks.ridge import principal_axes, principal_components, ridge_scores


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def fitted(rows: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Coefficients and intercept of a ridge regression whose intercept is free, by the normal equations."""
    centered = rows - rows.mean(0)
    gram = centered.T @ centered + penalty * torch.eye(rows.shape[1], dtype=rows.dtype)
    weights = torch.linalg.solve(gram, centered.T @ (targets - targets.mean(0)))
    return weights, targets.mean(0) - rows.mean(0) @ weights


def slowly(rows: Tensor, targets: Tensor, used: Tensor, factor: float) -> tuple[Tensor, float]:
    """Predictions of regressions that leave out one row of `used` each, and their squared error on these."""
    seen = rows[used] - rows[used].mean(0)
    penalty = factor * float((seen.T @ seen).diagonal().mean())
    predicted = torch.zeros_like(targets)
    for i in range(len(rows)):
        others = used.clone()
        others[i] = False
        weights, intercept = fitted(rows[others], targets[others], penalty)
        predicted[i] = rows[i] @ weights + intercept
    return predicted, float((predicted - targets)[used].square().mean())


@pytest.mark.parametrize("half", [False, True])
def test_it_is_what_regressions_say_that_have_not_seen_the_label(half: bool) -> None:
    rows = made(40, 5).double() * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1])
    targets = F.one_hot((rows[:, 0] + made(40, seed=1) > 0).long() + (rows[:, 1] > 2), 3).double()
    used = torch.arange(40) % 3 > 0 if half else torch.ones(40, dtype=torch.bool)
    candidates = [slowly(rows, targets, used, factor) for factor in module.PENALTIES]
    expected = min(candidates, key=lambda found: found[1])[0]
    expected = (expected - expected.mean(0)) / expected.std(0, correction=0)
    found = ridge_scores(rows.float(), targets.float(), used if half else None)
    torch.testing.assert_close(found, expected.float(), atol=2e-3, rtol=2e-3)


def test_noise_has_nothing_to_say_and_a_line_has() -> None:
    labels = torch.arange(300) % 3
    given = F.one_hot(labels, 3).float()
    right = ridge_scores(made(300, 6) + 2 * torch.eye(6)[labels], given).argmax(1) == labels
    chance = ridge_scores(made(300, 6), given).argmax(1) == labels
    assert float(right.float().mean()) > 0.8 and float(chance.float().mean()) < 0.45


def test_principal_components_are_those_of_a_full_decomposition() -> None:
    features = made(50, 12) * torch.arange(12, 0, -1) + 3
    unit = F.normalize(features, dim=1)
    _, values, axes = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    found = principal_components(features, Generator().manual_seed(0), count=4)
    torch.testing.assert_close(found.norm(dim=0), values[:4], atol=1e-4, rtol=1e-4)
    expected = (unit - unit.mean(0)) @ axes[:4].T
    torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-4, rtol=1e-3)
    again = principal_components(features * 7, Generator().manual_seed(0), count=4)
    torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-4)


def test_principal_axes_are_those_of_the_covariance() -> None:
    rows = made(50, 12) * torch.arange(12, 0, -1)
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows / 50)
    found, axes = principal_axes(rows, Generator().manual_seed(0), count=4)
    torch.testing.assert_close(found, values.flip(0)[:4], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close((axes * vectors.flip(1)[:, :4]).sum(0).abs(), torch.ones(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("count", "width"), [(1, 3), (2, 1), (2, 5), (3, 200), (5, 1)])
def test_few_images_and_few_features(count: int, width: int) -> None:
    features = made(count, width)
    features[0] = 0  # no direction
    components = principal_components(features, Generator().manual_seed(0))
    assert components.shape == (count, min(count, width)) and bool(components.isfinite().all())
    found = ridge_scores(components, F.one_hot(torch.arange(count) % 2, 3).float())
    assert found.shape == (count, 3) and bool(found.isfinite().all())
    nothing = ridge_scores(components, torch.ones(count, 3) / 3, torch.zeros(count, dtype=torch.bool))
    assert torch.equal(nothing, torch.zeros(count, 3))


def test_equal_images_of_different_labels() -> None:
    components = principal_components(torch.ones(20, 4), Generator().manual_seed(0))
    assert bool(ridge_scores(components, F.one_hot(torch.arange(20) % 2, 2).float()).isfinite().all())
