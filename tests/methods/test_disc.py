"""DISC beside a slow version, and what it claims: each label is judged by what the network said of its image before."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.mixmatch import within
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.disc import DISC
from tests.methods.tiny import KIND, Network, run

SEEN = torch.tensor(
    [
        [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.97, 0.02, 0.01], [0.4, 0.3, 0.3]],
        [[0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.2, 0.2, 0.6], [0.99, 0.01, 0.00], [0.2, 0.6, 0.2]],
    ]
)
LABELS = torch.tensor([0, 0, 0, 1, 2])
THRESHOLDS = torch.tensor([[0.3, 0.3, 0.15, 0.9, 0.5], [0.3, 0.3, 0.35, 0.6, 0.5]])


def slow_selection(method: DISC, trusted: list[bool]) -> list[tuple[float, int, bool]]:
    """Example by example."""
    found = []
    for i, label in enumerate(LABELS.tolist()):
        views = [bool(SEEN[v, i, label] > THRESHOLDS[v, i]) or trusted[i] for v in (0, 1)]
        mean = [(float(SEEN[0, i, c]) + float(SEEN[1, i, c])) / 2 for c in range(3)]
        limit = min(float(THRESHOLDS[:, i].sum()) / 2 + method.correction_margin, method.correction_limit)
        corrected = not any(views) and max(mean) > limit
        found.append((sum(views) / 2, mean.index(max(mean)) if corrected else label, any(views) or corrected))
    return found


@pytest.mark.parametrize("margin", [0.1, 0.5])
@pytest.mark.parametrize("trusted", [None, torch.tensor([False, False, True, False, True])])
def test_selection_by_hand(margin: float, trusted: Tensor | None) -> None:
    method = DISC(correction_margin=margin, correction_limit=0.97)
    p_clean, labels, mixed = method.select(SEEN, THRESHOLDS, LABELS, trusted)
    wanted = slow_selection(method, [False] * 5 if trusted is None else trusted.tolist())
    assert list(zip(p_clean.tolist(), labels.tolist(), mixed.tolist(), strict=True)) == wanted
    if trusted is None:  # right, hard, corrected if the margin is small, corrected by the limit, none of these
        assert p_clean.tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]
        assert labels.tolist() == [0, 0, 2 if margin == 0.1 else 0, 0, 2]
        assert mixed.tolist() == [True, True, margin == 0.1, True, False]


def test_losses_of_right_and_hard_labels_by_hand() -> None:
    logits = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    p_clean = torch.tensor([1.0, 0.5, 0.0, 1.0, 0.5])
    found, plain = (DISC(hard_weight=0.2, power=0.7).fit(logits, LABELS, which) for which in (p_clean, None))
    total = 0.0
    for view in logits:
        for row, label, p in zip(view.softmax(1).tolist(), LABELS.tolist(), p_clean.tolist(), strict=True):
            loss = {1.0: -math.log(row[label]), 0.5: 0.2 * (1 - row[label] ** 0.7) / 0.7, 0.0: 0.0}[p]
            total += loss / 5
    assert float(found) == pytest.approx(total, abs=1e-5)
    assert float(plain) == pytest.approx(sum(float(F.cross_entropy(view, LABELS)) for view in logits), abs=1e-5)


@pytest.mark.parametrize("size", [0, 1, 5, 12])
def test_partners_within_a_group(size: int) -> None:
    draws = torch.Generator().manual_seed(size)
    group = torch.zeros(12, dtype=torch.bool)
    group[torch.randperm(12, generator=draws)[:size]] = True
    made = {tuple(within(torch.randperm(12, generator=draws), group).tolist()) for _ in range(20)}
    assert all(sorted(each) == list(range(12)) for each in made) and len(made) > 1
    assert all(bool(group[list(each)].eq(group).all()) for each in made)


def test_mixed_images_have_the_loss_of_the_group_alone(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unmixed (alpha = 0), it is cross-entropy of the labels that are selected or corrected, once more in each view."""
    method = DISC(epochs=3, batch_size=64, mixup_alpha=0.0)
    state = method.start(data, network, Engine())
    state.mixed, state.labels = torch.arange(64) % 3 == 0, KIND.clone()
    state.p_clean = torch.zeros(1, 64)
    index = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    images = data.eval_view(index)
    found = method._mixture(state, [images, images.flip(3)], index, torch.Generator())
    with torch.no_grad():
        both = state.peers[0].logits(torch.cat([images, images.flip(3)])).chunk(2)
    inside = state.mixed[index]
    wanted = sum(float(F.cross_entropy(each[inside], KIND[index][inside])) for each in both)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-4)
    state.mixed = torch.zeros(64, dtype=torch.bool)
    assert float(method._mixture(state, [images, images], index, torch.Generator()).detach()) == 0.0


def test_thresholds_are_the_running_mean_of_confidence(data: TrainingData, network: Network) -> None:
    """With no memory, and with all of it; labels are first judged at the end of warm-up."""
    state: Any = DISC().start(data, network, Engine())
    for memory in (0.0, 1.0):
        method = DISC(epochs=6, batch_size=32, learning_rate=0.05, warmup=2, threshold_memory=memory)
        state = method.start(data, network, Engine())
        for epoch in range(3):
            method.epoch(state, data, epoch)
            assert (state.p_clean is None) is (epoch == 0)
        assert bool((state.thresholds == 1 / 64).all()) is (memory == 1)
        assert memory == 1 or bool(((state.thresholds > 0.25) & (state.thresholds < 1)).all())


def test_wrong_labels_are_left_out_or_corrected(data: TrainingData, network: Network) -> None:
    plain: dict[str, Any] = {"epochs": 40, "batch_size": 16, "learning_rate": 0.05, "momentum": 0.9, "warmup": 8}
    method = DISC(**plain, threshold_memory=0.9, correction_limit=0.85)
    state = run(method, data, network)
    right = data.labels == KIND
    chosen = state.p_clean[0] > 0.5
    assert float(right[chosen].float().mean()) > 0.95 and int(chosen.sum()) > 10
    corrected = state.labels != data.labels
    assert int(corrected.sum()) > 5 and float((state.labels == KIND)[corrected].float().mean()) > 0.9
    known = dataclasses.replace(data, trusted=~right)
    assert torch.equal(run(method, known, network, 20).labels[~right], data.labels[~right])
