"""Logistic regression against scikit-learn, its optimum against moves away from it, and the choice of the penalty."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor

import scanmix.blocks.logistic as module
from scanmix.blocks.logistic import logistic_regression, minimize


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def clouds(
    count: int, wrong: float, classes: int = 3, features: int = 12, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Clouds that touch, their classes, and labels of which a share is drawn anew."""
    true = torch.arange(count) % classes
    rows = made(count, features, seed=seed) + 2 * torch.eye(features)[true]
    generator = Generator().manual_seed(seed + 1)
    drawn = torch.randint(classes, true.shape, generator=generator)
    return rows, true, torch.where(torch.rand(count, generator=generator) < wrong, drawn, true)


def one_fit(rows: Tensor, targets: Tensor, counted: Tensor, penalty: float) -> Tensor:
    start = torch.zeros(rows.shape[1] + 1, counted.shape[1], targets.shape[1])
    return minimize(rows, targets, counted, penalty, start, 300)


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_each_fit_is_that_of_scikit_learn_on_its_rows(
    penalty: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    rows, _, labels = clouds(90, 0.3)
    counted = (torch.arange(90).unsqueeze(1) % 3 != torch.arange(3)).float() * (1 + torch.arange(90) % 2).unsqueeze(1)
    found = one_fit(rows, F.one_hot(labels, 3).float(), counted, penalty)
    for number in range(3):
        share = (counted[:, number] / counted[:, number].sum()).double()
        slow = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000)
        slow.fit(rows.double().numpy(), labels.numpy(), sample_weight=share.numpy())
        expected = torch.from_numpy(slow.coef_).float()
        torch.testing.assert_close(found[:-1, number].T, expected, atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(
            found[-1, number] - found[-1, number].mean(),
            torch.from_numpy(slow.intercept_).float(),
            atol=5e-3,
            rtol=5e-3,
        )


def test_no_step_away_lowers_the_loss_on_soft_targets() -> None:
    rows, targets = made(40, 4), made(40, 3, seed=1).softmax(1)
    counted, penalty = torch.rand(40, 1, generator=Generator().manual_seed(2)), 0.05

    def loss(weights: Tensor) -> float:
        log_probs = (rows @ weights[:-1] + weights[-1]).double().log_softmax(1)
        shares = counted[:, 0] / counted.sum()
        return float(-((log_probs * targets).sum(1) * shares).sum() + penalty / 2 * weights[:-1].square().sum())

    found = one_fit(rows, targets, counted, penalty).squeeze(1)
    least = loss(found)
    for seed in range(20):
        assert loss(found + 0.05 * made(5, 3, seed=seed)) > least


def test_the_more_labels_are_wrong_the_stronger_is_the_penalty() -> None:
    chosen = []
    for wrong in (0.0, 0.5, 0.9):
        rows, true, labels = clouds(300, wrong, features=60)
        found = logistic_regression(rows, F.one_hot(labels, 3).float(), Generator().manual_seed(0))
        chosen.append(found.penalty)
        right = float(((rows @ found.weight.T + found.bias).argmax(1) == true).float().mean())
        assert right > {0.0: 0.9, 0.5: 0.6, 0.9: 0.0}[wrong]
    assert chosen[0] < chosen[1] < chosen[2] and set(chosen) <= set(module.PENALTIES)


def test_the_likelihood_is_of_targets_that_the_fit_has_not_seen() -> None:
    rows, labels = made(100, 80), torch.arange(100) % 2
    found = logistic_regression(rows, F.one_hot(labels, 2).float(), Generator().manual_seed(0))
    assert float(found.held_out) < -0.6, "labels are independent of the rows: nothing better than chance, log(1 / 2)"


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1000.0, 0.0), (1.0, 50.0), (1e-3, -0.02)])
def test_scale_and_place_of_the_features_do_not_matter(scale: float, shift: float) -> None:
    rows, _, labels = clouds(120, 0.3)
    targets = F.one_hot(labels, 3).float()
    plain = logistic_regression(rows, targets, Generator().manual_seed(0))
    moved = logistic_regression(scale * rows + shift, targets, Generator().manual_seed(0))
    assert moved.penalty == plain.penalty
    logits = (scale * rows + shift) @ moved.weight.T + moved.bias
    torch.testing.assert_close(logits, rows @ plain.weight.T + plain.bias, atol=0.05, rtol=0.02)


def test_the_same_folds_give_the_same_bits() -> None:
    rows, _, labels = clouds(60, 0.3)
    first, second = (
        logistic_regression(rows, F.one_hot(labels, 3).float(), Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_features_that_are_all_alike_give_the_shares_of_the_labels() -> None:
    targets = F.one_hot(torch.tensor([0, 0, 0, 1]), 2).float().repeat(10, 1)
    found = logistic_regression(torch.ones(40, 3), targets, Generator().manual_seed(0))
    torch.testing.assert_close(found.bias.softmax(0), torch.tensor([0.75, 0.25]), atol=1e-2, rtol=0)
    assert bool(found.weight.isfinite().all())
