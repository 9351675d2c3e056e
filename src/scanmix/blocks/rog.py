"""RoG, a robust generative classifier on the features of a trained network (Lee et al., ICML 2019).

Gaussians of one covariance stand for the classes at several layers, fitted to the examples that lie closest together,
for wrong labels lie apart. Legend: N examples, L layers, C classes, D_l features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

KEPT = 0.7
"""Share of each class that is kept: the published value, for up to 30 % that lie apart."""
HELD_OUT = 500
"""Examples that layers are weighed by, a fifth of all at most."""


class Gaussians(NamedTuple):
    """One layer: a mean for each class, and what all share."""

    means: Tensor
    """(C, D) float64."""
    precision: Tensor
    """(D, D): the inverse of the covariance."""

    def logits(self, features: Tensor) -> Tensor:
        """Return mu^T P x - mu^T P mu / 2 - log C, all classes as likely. Shape: (N, D) -> (N, C)."""
        toward = self.means @ self.precision
        constant = (toward * self.means).sum(1) / 2 + math.log(len(self.means))
        return features.double() @ toward.T - constant

    def distances(self, features: Tensor, labels: Tensor) -> Tensor:
        """Squared Mahalanobis distance of each example to the mean of its class. Shape: (N, D), (N,) -> (N,)."""
        apart = features.double() - self.means[labels]
        return ((apart @ self.precision) * apart).sum(1)


class RoG(NamedTuple):
    """What is left of a fit: Gaussians of each layer and how far each layer is trusted."""

    layers: tuple[Gaussians, ...]
    shares: Tensor
    """(L,), sum to 1."""

    def predict_proba(self, features: Sequence[Tensor]) -> Tensor:
        """Mean over layers of their class probabilities. Shape: L times (N, D_l) -> (N, C) float64."""
        each = [layer.logits(seen).softmax(1) for layer, seen in zip(self.layers, features, strict=True)]
        return (self.shares.view(-1, 1, 1) * torch.stack(each)).sum(0)


def fit_rog(features: Sequence[Tensor], labels: Tensor, num_classes: int, generator: Generator) -> RoG:
    """Fit to noisy labels: all but a few examples make the Gaussians, those few the shares of the layers.

    Of the few only the half that lies closest to the mean of its label counts, as seen at the last layer.
    Shape: L times (N, D_l), (N,) int64.
    """
    order = torch.randperm(len(labels), generator=generator)
    held, rest = order.tensor_split([min(HELD_OUT, len(order) // 5)])
    layers = tuple(robust_gaussians(seen[rest], labels[rest], num_classes, generator) for seen in features)
    near = layers[-1].distances(features[-1][held], labels[held]).argsort()[: max(1, len(held) // 2)]
    held = held[near] if len(held) else rest
    each = [layer.logits(seen[held]).log_softmax(1) for layer, seen in zip(layers, features, strict=True)]
    return RoG(layers, shares_of_layers(torch.stack(each), labels[held], generator))


def robust_gaussians(features: Tensor, labels: Tensor, num_classes: int, generator: Generator) -> Gaussians:
    """Fit means and a shared covariance to the `KEPT` share of each class that lies closest together (MCD).

    A random share begins; then the nearest in Mahalanobis distance are taken in its place, once, which can only
    lower the determinant of the covariance. A class without examples gets the mean of all.
    Shape: (N, D), (N,) -> (C, D), (D, D).
    """
    features = features.double()
    members = [(labels == label).nonzero().squeeze(1) for label in range(num_classes)]
    counts = [max(1, round(KEPT * len(own))) for own in members]
    first = [
        own[torch.randperm(len(own), generator=generator)[:count]] for own, count in zip(members, counts, strict=True)
    ]
    begin = _pooled(features, first)
    chosen = []
    for label, (own, count) in enumerate(zip(members, counts, strict=True)):
        near = begin.distances(features[own], torch.full((len(own),), label)).argsort()[:count]
        chosen.append(own[near])
    return _pooled(features, chosen)


def _pooled(features: Tensor, members: Sequence[Tensor]) -> Gaussians:
    """Mean of each class, and the inverse of the covariance within classes."""
    means = torch.stack([features[own].mean(0) if len(own) else features.mean(0) for own in members])
    apart = torch.cat([features[own] - mean for own, mean in zip(members, means, strict=True)])
    covariance = apart.T @ apart / max(1, len(apart))
    return Gaussians(means, torch.linalg.pinv(covariance, hermitian=True))


def shares_of_layers(log_probs: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Learn the weights of the layers by the likelihood of labels: Adam, 20 passes in batches of 50.

    Shape: (L, N, C), (N,) -> (L,).
    """
    wanted = log_probs.gather(2, labels.expand(len(log_probs), -1).unsqueeze(2)).squeeze(2)  # (L, N)
    weights = torch.zeros(len(log_probs), 1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=0.02)
    for _ in range(20):
        for index in torch.randperm(len(labels), generator=generator).split(50):
            loss = -torch.logsumexp(weights.log_softmax(0) + wanted[:, index], 0).mean()
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
    return weights.detach().softmax(0).squeeze(1)
