"""Linear discriminant analysis beside scikit-learn's, and beside the eigenvalue problem as it is written."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Generator, Tensor

from scanmix.blocks.discriminant import discriminants


def made(count: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clouds of unequal size, whose features are correlated and of different units."""
    draws = Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=draws) * torch.randint(2, (count,), generator=draws)
    labels[:classes] = torch.arange(classes)
    mixed = torch.randn(width, width, generator=draws, dtype=torch.float64)
    centers = 2 * torch.randn(classes, width, generator=draws, dtype=torch.float64)
    rows = (centers[labels] + torch.randn(count, width, generator=draws, dtype=torch.float64)) @ mixed
    return rows * torch.logspace(-2, 2, width, dtype=torch.float64) + 3, labels


def projected(rows: Tensor, labels: Tensor, classes: int, shrinkage: float = 0.0) -> np.ndarray:
    found = discriminants(rows, labels, classes, shrinkage)
    return ((rows - found.center) @ found.directions).numpy()


def same_up_to_signs(found: np.ndarray, wanted: np.ndarray) -> None:
    assert not found[:, wanted.shape[1] :].any()
    found = found[:, : wanted.shape[1]]
    signs = np.sign((found * wanted).sum(0))
    np.testing.assert_allclose(found * signs, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(("count", "width", "classes"), [(60, 5, 3), (200, 12, 4), (40, 3, 6), (50, 4, 2)])
def test_it_is_scikit_learns(count: int, width: int, classes: int) -> None:
    rows, labels = made(count, width, classes)
    wanted = LinearDiscriminantAnalysis(solver="svd").fit(rows, labels).transform(rows)
    same_up_to_signs(projected(rows, labels, classes), wanted)


@pytest.mark.parametrize("share", [0.1, 0.9, 1.0])
@pytest.mark.parametrize(("count", "width", "classes"), [(60, 5, 3), (30, 40, 4)])
def test_shrunk_it_solves_the_problem_as_it_is_written(count: int, width: int, classes: int, share: float) -> None:
    rows, labels = (each.numpy() for each in made(count, width, classes))
    means = np.stack([rows[labels == c].mean(0) for c in range(classes)])
    units = (rows - means[labels]).std(0)
    within = (rows - means[labels]) / units
    shrunk = (1 - share) * np.cov(within.T, bias=True) + share * np.eye(width)
    shares = np.bincount(labels)[:, None] / count
    apart = (means - rows.mean(0)) / units
    _, axes = eigh(apart.T @ (shares * apart), shrunk)
    wanted = (rows - rows.mean(0)) / units @ axes[:, ::-1][:, : classes - 1]
    same_up_to_signs(projected(torch.from_numpy(rows), torch.from_numpy(labels), classes, share), wanted)


@pytest.mark.parametrize("shrinkage", [0.0, 0.5])
def test_units_of_the_features_do_not_matter(shrinkage: float) -> None:
    rows, labels = made(80, 6, 3)
    units = torch.tensor([1e-3, 1.0, 5.0, 1e3, 0.1, 2.0], dtype=torch.float64)
    first, second = (projected(each, labels, 3, shrinkage) for each in (rows, rows * units + 7))
    same_up_to_signs(second, first)


@pytest.mark.parametrize("shrinkage", [0.0, 0.5])
def test_what_little_there_is_gives_numbers(shrinkage: float) -> None:
    """One class, a class without examples, one example, equal rows, a constant feature."""
    rows, labels = made(30, 5, 3)
    rows[:, 2] = 4.0
    for some, given in ((rows, labels * 0), (rows, labels.clamp(max=1)), (rows[:1], labels[:1]), (rows * 0, labels)):
        found = discriminants(some, given, 4, shrinkage)
        assert found.directions.shape == (5, 3) and bool(found.directions.isfinite().all())
        assert not found.directions[:, len(given.unique()) - 1 :].any()
    apart = torch.eye(3, dtype=torch.float64)[torch.arange(9) % 3]  # classes that are points
    places = projected(apart, torch.arange(9) % 3, 3, shrinkage)
    assert len(np.unique(places.round(6), axis=0)) == 3
