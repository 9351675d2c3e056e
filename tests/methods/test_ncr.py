"""NCR beside a slow version, and what it claims: predictions of neighbors agree, and wrong labels are not memorized."""

import dataclasses
import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.neighbors import mean_of_similar
from scanmix.data.batches import TrainingData
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.ncr import NCR
from scanmix.networks.inference import predict_all
from tests.methods.tiny import KIND, Network, near, run, weights

LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])


def drawn(count: int, seed: int) -> Tensor:
    return torch.randn(7, count, generator=torch.Generator().manual_seed(seed))


def slow_mean(features: Tensor, shares: Tensor, k: int) -> Tensor:
    """Example by example."""
    rows = []
    for i, own in enumerate(features):
        cosines = {j: float(F.cosine_similarity(own, other, 0)) for j, other in enumerate(features) if j != i}
        nearest = sorted(cosines, key=lambda j: -cosines[j])[:k]
        positive = {j: max(cosines[j], 0.0) for j in nearest}
        if sum(positive.values()) == 0:
            positive = dict.fromkeys(nearest, 1.0)
        rows.append(sum(shares[j] * weight for j, weight in positive.items()) / sum(positive.values()))
    return torch.stack(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 3, 6, 50])
def test_the_mean_of_the_similar_by_hand(k: int) -> None:
    features, shares = drawn(3, 0), drawn(4, 1).softmax(1)
    found = mean_of_similar(features, shares, k)
    assert torch.allclose(found, slow_mean(features, shares, k), atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(7))


def test_unlike_neighbors_weigh_the_same() -> None:
    shares = drawn(4, 1)[:2]
    opposite = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert torch.allclose(mean_of_similar(opposite, shares, 5), shares.flip(0))
    assert torch.allclose(mean_of_similar(torch.zeros(2, 3), shares, 5), shares.flip(0))


@pytest.mark.parametrize("fidelity", ["paper", "released"])
def test_the_divergence_by_hand(fidelity: Literal["paper", "released"]) -> None:
    logits, features = drawn(3, 2), drawn(5, 3)
    trusted = torch.tensor([True, False, False, True, False, False, False])
    own = (logits / 1.5).softmax(1)
    standing = torch.where(trusted.unsqueeze(1), F.one_hot(LABELS, 3).float(), own)
    for shares, known in ((own, None), (standing, trusted)):
        found = NCR(num_neighbors=3, consistency_temperature=1.5, fidelity=fidelity).apart(
            logits, features, LABELS, known
        )
        for row, p, q in zip(found.tolist(), own.tolist(), slow_mean(features, shares, 3).tolist(), strict=True):
            first, second = (p, q) if fidelity == "paper" else (q, p)
            wanted = sum(a * math.log((a + 1e-8) / (b + 1e-8)) for a, b in zip(first, second, strict=True))
            assert row == pytest.approx(1.5**2 * wanted, abs=1e-4)


def test_gradients_pass_neighbors_and_similarities_but_not_known_labels() -> None:
    logits, features = drawn(3, 2).requires_grad_(), drawn(5, 3).requires_grad_()
    trusted = torch.tensor([True, False, False, True, False, False, False])
    found = NCR(num_neighbors=6).apart(logits, features, LABELS, trusted)
    of_logits, of_features = torch.autograd.grad(found[1], [logits, features])
    assert bool((of_logits[trusted] == 0).all()) and bool((of_logits[~trusted] != 0).any(1).all())
    assert bool((of_features[1] != 0).any())


def test_known_labels_have_cross_entropy_alone(data: TrainingData, network: Network) -> None:
    """With all labels known, and in warm-up, it is cross-entropy."""
    plain: dict[str, Any] = {"epochs": 3, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4}
    wanted = weights(run(CrossEntropy(**plain, learning_rate=0.05, lr_drop="100%"), data, network, 1).peers[0])
    every = dataclasses.replace(data, trusted=torch.ones(64, dtype=torch.bool))
    some = dataclasses.replace(data, trusted=torch.arange(64) < 20)

    def learned(warmup: int, with_: TrainingData) -> list[Tensor]:
        return weights(run(NCR(**plain, learning_rate=0.05, warmup=warmup), with_, network, 1).peers[0])

    assert near(learned(0, every), wanted, atol=1e-5) and near(learned(1, some), wanted, atol=1e-5)
    assert not near(learned(0, some), wanted, atol=1e-4) and not near(learned(0, data), learned(0, some), atol=1e-4)


def test_wrong_labels_are_memorized_less(data: TrainingData, network: Network) -> None:
    wrong = data.labels != KIND

    def memorized(weight: float) -> float:
        method = NCR(epochs=80, batch_size=32, warmup=4, consistency_weight=weight, num_neighbors=8)
        predicted = predict_all(method.predictor(run(method, data, network)), data).softmax(1)
        return float(predicted.gather(1, data.labels.unsqueeze(1))[wrong].mean())

    assert memorized(0.7) < 0.5 * memorized(0.0)
