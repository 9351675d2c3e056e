"""Propagated classes against a dense version, and on touching groups most of whose labels are wrong; least squares."""

import pytest
import torch
from torch import Generator, Tensor

import scanmix.blocks.propagated_classes as module
from scanmix.blocks.neighbors import nearest_neighbors, voted_labels
from scanmix.blocks.propagated_classes import least_squares_head, propagated_classes

GRID = [(2, 2, 1), (12, 2, 3), (60, 3, 5), (60, 7, 10)]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def slow(neighbors: Tensor, labels: Tensor, classes: int, own: Tensor, rounds: int) -> Tensor:
    """All of it with dense matrices in float64; `own` is the share of an image's own label."""
    count = len(labels)
    near = torch.zeros(count, count, dtype=torch.float64)
    near[torch.arange(count).unsqueeze(1), neighbors] = 1
    near = near.maximum(near.T).fill_diagonal_(0)
    scale = torch.diag(near.sum(1).rsqrt())
    spread = 0.05 * torch.linalg.inv(torch.eye(count).double() - 0.95 * scale @ near @ scale)
    given = torch.eye(classes).double()[labels]
    found = given
    for _ in range(rounds):
        centered = found - found.mean(0)
        scores = spread @ centered - own.double().unsqueeze(1) * centered
        scores = (scores - scores.mean(0)) / scores.std(0, correction=0)
        v = (module.TEMPERATURE * scores).exp()
        for _ in range(30):
            v = v / v.sum(1, keepdim=True)
            v = v * given.mean(0) / v.mean(0)
        v = v / v.sum(1, keepdim=True)
        counts = v.T @ given
        joint = v * (counts / counts.sum(1, keepdim=True)).T[labels]
        found = joint / joint.sum(1, keepdim=True)
    return found


@pytest.mark.parametrize("rounds", [0, 1, 2, 4])
@pytest.mark.parametrize(("count", "classes", "k"), GRID)
def test_rounds_are_those_of_the_dense_version(
    monkeypatch: pytest.MonkeyPatch, count: int, classes: int, k: int, rounds: int
) -> None:
    own = 0.05 + 0.05 * torch.rand(count, generator=seeded(3))
    monkeypatch.setattr(module, "own_share", lambda graph, generator: own)
    neighbors, labels = nearest_neighbors(made(count, 3), k), torch.arange(count) % classes
    found = propagated_classes(neighbors, labels, classes, seeded(), rounds)
    assert found.shape == (count, classes)
    torch.testing.assert_close(found.sum(1), torch.ones(count))
    torch.testing.assert_close(found.double(), slow(neighbors, labels, classes, own, rounds), atol=0.02, rtol=0)


def touching(rate: float, seed: int, classes: int = 5, each: int = 120) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of points in pairs that touch; a share `rate` of the labels is drawn anew."""
    true = torch.arange(classes).repeat_interleave(each)
    centers = 6.0 * torch.eye(classes)
    centers[1] = centers[0] + 4.0 * torch.eye(classes)[1]
    points = centers[true] + made(len(true), classes, seed=seed)
    drawn = torch.randint(classes, true.shape, generator=seeded(seed + 100))
    chosen = torch.rand(true.shape, generator=seeded(seed + 200)) < rate
    return points, true, torch.where(chosen, drawn, true)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_groups_that_touch_keep_their_classes_under_noise(rate: float, seed: int) -> None:
    points, true, labels = touching(rate, seed)
    neighbors = nearest_neighbors(points, 10)
    found = propagated_classes(neighbors, labels, 5, seeded()).argmax(1)
    assert (found == true).float().mean() >= 0.97
    if rate == 0.8:
        voted = voted_labels(neighbors, labels, 5, 1)
        assert (found == true).float().mean() > (voted == true).float().mean() + 0.1


def test_later_rounds_settle_what_the_first_leaves_open() -> None:
    points, true, labels = touching(0.9, seed=1)
    neighbors = nearest_neighbors(points, 10)
    once, often = (propagated_classes(neighbors, labels, 5, seeded(), rounds).argmax(1) for rounds in (1, 20))
    assert (often == true).float().mean() > (once == true).float().mean() + 0.1


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (1, 3), (2, 2), (2, 5), (30, 1), (30, 40)])
def test_few_images_one_class_and_classes_without_labels(count: int, classes: int) -> None:
    labels = torch.arange(count) % min(count, classes)
    alone = torch.empty(1, 0, dtype=torch.int64)
    neighbors = nearest_neighbors(made(count, 3), min(5, count - 1)) if count > 1 else alone
    found = propagated_classes(neighbors, labels, classes, seeded())
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sum(1), torch.ones(count))
    assert not found[:, labels.bincount(minlength=classes) == 0].any()


def test_points_that_are_all_the_same() -> None:
    labels = torch.arange(24) % 3
    found = propagated_classes(nearest_neighbors(torch.ones(24, 4), 5), labels, 3, seeded())
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sum(1), torch.ones(24))


@pytest.mark.parametrize("scale", [1.0, 7.0])
@pytest.mark.parametrize(("count", "width", "classes"), [(1, 3, 2), (5, 8, 3), (50, 4, 3), (50, 4, 1)])
def test_the_head_is_that_of_least_squares(count: int, width: int, classes: int, scale: float) -> None:
    features, probs = 3 + made(count, width), made(count, classes, seed=1).softmax(1)
    features[:, -1] = 2.0  # a feature that tells nothing
    weight, bias = least_squares_head(features, probs, scale)
    assert weight.shape == (classes, width) and bias.shape == (classes,) and weight.dtype == torch.float32
    x, y = features.double(), probs.double()
    slow_weight: Tensor = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0), driver="gelsd").solution
    torch.testing.assert_close(weight.double(), scale * slow_weight.T, atol=1e-4, rtol=1e-4)
    expected = scale * ((x - x.mean(0)) @ slow_weight + y.mean(0))
    torch.testing.assert_close(features.double() @ weight.double().T + bias.double(), expected, atol=1e-4, rtol=1e-4)
    assert not weight[:, -1].abs().gt(1e-5).any()
