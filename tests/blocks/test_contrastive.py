"""Contrastive losses with labels, against sums written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.contrastive import interpolated_contrast, supervised_contrast
from scanmix.blocks.losses import nt_xent


def rows(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_hand(anchors: Tensor, keys: Tensor, label: int, key_labels: list[int], i: int, temperature: float) -> float:
    exps = [math.exp(float(anchors[i] @ keys[j]) / temperature) for j in range(len(keys))]
    total = sum(value for j, value in enumerate(exps) if j != i)
    positives = [j for j, other in enumerate(key_labels) if other == label and j != i]
    return -sum(math.log(exps[j] / total) for j in positives) / max(1, len(positives))


@pytest.mark.parametrize("more", [0, 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_supervised_loss_by_hand(more: int, temperature: float) -> None:
    anchors = rows(6, 0)
    keys = torch.cat([anchors, rows(more, 1)])
    labels = torch.tensor([0, 1, 2, 0, 1, 3])
    key_labels = torch.cat([labels, torch.arange(more) % 3])
    found = supervised_contrast(anchors, keys, labels, key_labels, temperature)
    wanted = [by_hand(anchors, keys, int(labels[i]), key_labels.tolist(), i, temperature) for i in range(6)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)
    assert found[5] == 0, "without another of its label"


def test_a_label_for_each_image_is_simclr() -> None:
    first, second = rows(4, 0), rows(4, 1)
    both = torch.cat([first, second])
    labels = torch.arange(4).repeat(2)
    found = supervised_contrast(both, both, labels, labels, 0.5).mean()
    assert float(found) == pytest.approx(float(nt_xent(first, second, 0.5)), rel=1e-5)


def test_the_interpolated_loss_by_hand() -> None:
    anchors, weights = rows(6, 0), torch.tensor([0.9, 0.9, 0.9, 0.6, 0.6, 0.6])
    keys = torch.cat([anchors, rows(4, 1)])
    labels, partners = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 1, 0, 2, 0, 2])
    key_labels = torch.cat([labels, torch.tensor([0, 1, 1, 2])])
    wanted = 0.0
    for i in range(6):
        for weight, label in ((float(weights[i]), labels[i]), (1 - float(weights[i]), partners[i])):
            wanted += weight * by_hand(anchors, keys, int(label), key_labels.tolist(), i, 0.2) / 6
    found = interpolated_contrast(anchors, keys, labels, partners, weights, key_labels, 0.2)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    plain = interpolated_contrast(anchors, keys, labels, partners, torch.ones(6), key_labels, 0.2)
    assert float(plain) == pytest.approx(float(supervised_contrast(anchors, keys, labels, key_labels, 0.2).mean()))


def test_gradients_are_finite_where_nothing_is_positive() -> None:
    anchors = rows(3, 0).requires_grad_()
    labels = torch.arange(3)
    supervised_contrast(anchors, anchors, labels, labels, 0.1).sum().backward()
    assert anchors.grad is not None and bool(anchors.grad.isfinite().all())
