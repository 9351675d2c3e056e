"""RoG, a robust generative classifier on the features of a trained network (Lee et al., ICML 2019).

At several layers each class is a Gaussian with a covariance that all classes share. It is fitted to the examples of a
class that lie closest together, as features of wrongly labeled images lie further out.

Legend: N examples, L layers, C classes, D_l features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

KEPT = 0.7
"""Share (0..1) of each class that the Gaussians are fitted to: the published value, for up to 30 % of outliers."""
HELD_OUT = 500
"""Examples that the weights of the layers are fitted to; a fifth of all at most."""


class Gaussians(NamedTuple):
    """One layer: a mean for each class, and the precision that all classes share."""

    means: Tensor
    """(C, D) float64."""
    precision: Tensor
    """(D, D): the inverse of the covariance."""

    def logits(self, features: Tensor) -> Tensor:
        """Return mu^T P x - mu^T P mu / 2 - log C, with equal priors. Shape: (N, D) -> (N, C) float64."""
        weight = self.means @ self.precision
        constant = (weight * self.means).sum(1) / 2 + math.log(len(self.means))
        return features.double() @ weight.T - constant

    def distances(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the squared Mahalanobis distance of each example to the mean of its label.

        Shape: (N, D), (N,) int64 -> (N,) float64.
        """
        centered = features.double() - self.means[labels]
        return ((centered @ self.precision) * centered).sum(1)


class RoG(NamedTuple):
    """A fitted classifier: the Gaussians of each layer and the weights of the layers."""

    layers: tuple[Gaussians, ...]
    shares: Tensor
    """(L,) weights of the layers; they sum to 1."""

    def predict_proba(self, features: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean over layers of class probabilities. Shape: L times (N, D_l) -> (N, C) float64."""
        each = [layer.logits(values).softmax(1) for layer, values in zip(self.layers, features, strict=True)]
        return (self.shares.view(-1, 1, 1) * torch.stack(each)).sum(0)


def fit_rog(features: Sequence[Tensor], labels: Tensor, num_classes: int, generator: Generator) -> RoG:
    """Fit to noisy labels: Gaussians to most examples, the weights of the layers to the few that are held out.

    Of the held-out examples the half that lies closest to the mean of its label at the last layer is used. With fewer
    than five examples none is held out and the weights are fitted to all. Copies the features of
    one layer at a time to float64, so memory grows with N. Shape: L times (N, D_l), (N,) int64.
    """
    order = torch.randperm(len(labels), generator=generator)
    held, rest = order.tensor_split([min(HELD_OUT, len(order) // 5)])
    layers = tuple(robust_gaussians(values[rest], labels[rest], num_classes, generator) for values in features)
    near = layers[-1].distances(features[-1][held], labels[held]).argsort()[: max(1, len(held) // 2)]
    held = held[near] if len(held) else rest
    each = [layer.logits(values[held]).log_softmax(1) for layer, values in zip(layers, features, strict=True)]
    return RoG(layers, shares_of_layers(torch.stack(each), labels[held], generator))


def robust_gaussians(features: Tensor, labels: Tensor, num_classes: int, generator: Generator) -> Gaussians:
    """Fit means and a shared covariance to the `KEPT` share of each class that lies closest together.

    One step of the minimum covariance determinant estimator: Gaussians of a random share, then those of the examples
    nearest to them in Mahalanobis distance. At least one example of a class is used; a class without examples gets
    the mean of all. Shape: (N, D), (N,) int64 -> (C, D), (D, D).
    """
    features = features.double()
    members = [(labels == label).nonzero().squeeze(1) for label in range(num_classes)]
    counts = [max(1, round(KEPT * len(rows))) for rows in members]
    first = [
        rows[torch.randperm(len(rows), generator=generator)[:count]]
        for rows, count in zip(members, counts, strict=True)
    ]
    begin = _pooled(features, first)
    chosen = []
    for label, (rows, count) in enumerate(zip(members, counts, strict=True)):
        near = begin.distances(features[rows], torch.full((len(rows),), label)).argsort()[:count]
        chosen.append(rows[near])
    return _pooled(features, chosen)


def _pooled(features: Tensor, members: Sequence[Tensor]) -> Gaussians:
    """Return the mean of each class, and the pseudo-inverse of the covariance within classes.

    Shape: (N, D), C times the rows of a class -> (C, D), (D, D).
    """
    means = torch.stack([features[rows].mean(0) if len(rows) else features.mean(0) for rows in members])
    centered = torch.cat([features[rows] - mean for rows, mean in zip(members, means, strict=True)])
    covariance = centered.T @ centered / max(1, len(centered))
    return Gaussians(means, torch.linalg.pinv(covariance, hermitian=True))


def shares_of_layers(log_probs: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Fit the weights of the layers to the likelihood of the labels, by Adam: 20 passes in batches of 50.

    `log_probs` are log-probabilities of the classes at each layer, float64. Shape: (L, N, C), (N,) int64 -> (L,).
    """
    of_label = log_probs.gather(2, labels.expand(len(log_probs), -1).unsqueeze(2)).squeeze(2)  # (L, N)
    weights = torch.zeros(len(log_probs), 1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=0.02)
    for _ in range(20):
        for index in torch.randperm(len(labels), generator=generator).split(50):
            loss = -torch.logsumexp(weights.log_softmax(0) + of_label[:, index], 0).mean()
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
    return weights.detach().softmax(0).squeeze(1)
