"""RoG: robust Gaussians on features."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from scanmix.blocks import rog
from scanmix.blocks.rog import Gaussians, fit_rog, robust_gaussians, shares_of_layers


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(count: int = 600, wrong: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Three stretched clouds in four dimensions; features, given labels, true classes."""
    draw = generator(seed)
    true = torch.arange(count) % 3
    centers = torch.tensor([[0.0, 0, 0, 0], [4, 0, 0, 0], [0, 4, 0, 0]])
    features = torch.randn(count, 4, generator=draw) * torch.tensor([1.0, 0.5, 2.0, 0.2]) + centers[true]
    other = (true + torch.randint(1, 3, (count,), generator=draw)) % 3
    labels = torch.where(torch.rand(count, generator=draw) < wrong, other, true)
    return features, labels, true


def test_the_logits_are_those_of_linear_discriminant_analysis() -> None:
    features, _, true = made()
    means = torch.stack([features[true == c].double().mean(0) for c in range(3)])
    apart = features.double() - means[true]
    found = Gaussians(means, torch.linalg.inv(apart.T @ apart / 600)).logits(features)
    known = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(features.double().numpy(), true.numpy())
    wanted = known.decision_function(features.double().numpy())
    differences = found - found.mean(1, keepdim=True)
    assert np.allclose(differences.numpy(), wanted - wanted.mean(1, keepdims=True), atol=0.05 * np.abs(wanted).max())
    for i in (0, 7):
        for c in range(3):
            toward = means[c] @ torch.linalg.inv(apart.T @ apart / 600)
            slow = float(toward @ features[i].double() - toward @ means[c] / 2) - np.log(3)
            assert float(found[i, c]) == pytest.approx(slow, rel=1e-6)


def test_distances_by_hand() -> None:
    features, labels, _ = made(30)
    fit = robust_gaussians(features, labels, 3, generator())
    for i in range(30):
        apart = features[i].double() - fit.means[labels[i]]
        slow = float(apart @ fit.precision @ apart)
        assert float(fit.distances(features, labels)[i]) == pytest.approx(slow)


def test_wrong_labels_move_the_robust_means_less() -> None:
    features, labels, true = made(3000, wrong=0.3)
    plain = torch.stack([features[labels == c].mean(0) for c in range(3)])
    robust = robust_gaussians(features, labels, 3, generator()).means
    wanted = torch.stack([features[true == c].mean(0) for c in range(3)])
    assert float((robust - wanted).norm()) < 0.5 * float((plain - wanted).norm())


def test_the_chosen_ones_are_the_nearest_of_the_first_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, _ = made(90)
    seen: list[list[Tensor]] = []
    real = rog._pooled

    def noted(x: Tensor, members: Sequence[Tensor]) -> Gaussians:
        seen.append(list(members))
        return real(x, members)

    monkeypatch.setattr(rog, "_pooled", noted)
    robust_gaussians(features, labels, 3, generator())
    first, second = seen
    begin = real(features.double(), first)
    for c in range(3):
        own = (labels == c).nonzero().squeeze(1)
        assert len(first[c]) == len(second[c]) == round(0.7 * len(own))
        apart = begin.distances(features[own], labels[own])
        assert set(second[c].tolist()) == set(own[apart.argsort()[: len(second[c])]].tolist())


def test_layers_that_tell_classes_apart_have_the_larger_share() -> None:
    features, labels, true = made(900, wrong=0.2)
    noise = torch.randn(900, 6, generator=generator(1))
    fit = fit_rog([noise, features], labels, 3, generator())
    assert float(fit.shares.sum()) == pytest.approx(1) and float(fit.shares[1]) > 0.8
    probabilities = fit.predict_proba([noise, features])
    assert torch.allclose(probabilities.sum(1), torch.ones(900, dtype=torch.float64))
    assert float((probabilities.argmax(1) == true).float().mean()) > 0.93


def test_equal_layers_have_equal_shares() -> None:
    log_probs = torch.randn(1, 200, 3, generator=generator(), dtype=torch.float64).log_softmax(2).repeat(2, 1, 1)
    assert shares_of_layers(log_probs, torch.arange(200) % 3, generator()).tolist() == pytest.approx([0.5, 0.5])


def test_a_class_without_examples_and_features_without_spread() -> None:
    features, labels, _ = made(60)
    flat = torch.cat([features, torch.zeros(60, 2)], 1)
    fit = fit_rog([flat], labels, 5, generator())
    assert bool(fit.predict_proba([flat]).isfinite().all())
