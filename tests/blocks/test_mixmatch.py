"""MixMatch and its verbs against slow versions that look at one image at a time."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from scanmix.blocks.mixmatch import beta, guess, mixup, refine, sharpen
from scanmix.distributed.engine import Engine
from scanmix.methods.steps.mixmatch import mixmatch
from scanmix.networks.peer import Peer

SHAPES = st.tuples(st.integers(1, 5), st.integers(2, 5))
SEEDS = st.integers(0, 2**31)


def made_probs(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


def slow_sharpen(row: Sequence[float], temperature: float) -> list[float]:
    powered = [value ** (1 / temperature) for value in row]
    return [value / sum(powered) for value in powered]


def stub_peer(seed: int) -> Peer:
    """A peer small enough to see through; its batch norm has statistics of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        peer = Peer(encoder, 3, 4, engine=Engine(), momentum=0.9, weight_decay=0)
        for name, buffer in peer.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(3) + 0.5)
        peer.classifier.weight.data *= 5
    return peer


@given(SHAPES, SEEDS, st.floats(0.2, 3))
def test_sharpen_is_the_slow_one(shape: tuple[int, int], seed: int, temperature: float) -> None:
    probs = made_probs(*shape, seed=seed)
    for row, got in zip(probs.tolist(), sharpen(probs, temperature).tolist(), strict=True):
        assert got == pytest.approx(slow_sharpen(row, temperature))


def test_sharpen_at_one_half_squares() -> None:
    # (0.6, 0.3, 0.1)^2 = (0.36, 0.09, 0.01), which sums to 0.46.
    got = sharpen(torch.tensor([[0.6, 0.3, 0.1]]), 0.5)[0].tolist()
    assert got == pytest.approx([36 / 46, 9 / 46, 1 / 46])


@pytest.mark.parametrize("temperature", [1e-2, 1e-4, 1e-8])
def test_sharpen_at_tiny_temperatures_is_the_largest_and_never_nan(temperature: float) -> None:
    probs = torch.tensor([[0.02, 0.01, 0.97], [0.5, 0.5, 0.0], [0.34, 0.33, 0.33], [0.0, 1.0, 0.0]])
    sharp = sharpen(torch.cat([probs, torch.full((1, 3), 1 / 3)]), temperature)
    assert bool(sharp.isfinite().all())
    assert sharp.sum(1).tolist() == pytest.approx([1.0] * 5)
    assert sharp[:2].tolist() == [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
    assert sharp[3].tolist() == [0.0, 1.0, 0.0]
    assert sharp[4].tolist() == pytest.approx([1 / 3] * 3)


@given(SHAPES, SEEDS, st.floats(0.2, 2))
def test_refine_is_the_slow_one(shape: tuple[int, int], seed: int, temperature: float) -> None:
    probs = made_probs(*shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(shape[1], (shape[0],), generator=generator)
    p_clean = torch.rand(shape[0], generator=generator, dtype=torch.float64)
    got = refine(probs, nn.functional.one_hot(labels, shape[1]).double(), p_clean, temperature)
    for i, (row, w) in enumerate(zip(probs.tolist(), p_clean.tolist(), strict=True)):
        mixed = [w * (c == int(labels[i])) + (1 - w) * p for c, p in enumerate(row)]
        assert got[i].tolist() == pytest.approx(slow_sharpen(mixed, temperature))


@given(st.integers(1, 5), SHAPES, SEEDS, st.floats(0.2, 2))
def test_guess_is_the_slow_one(views: int, shape: tuple[int, int], seed: int, temperature: float) -> None:
    view_probs = made_probs(views, *shape, seed=seed)
    got = guess(view_probs, temperature)
    for i in range(shape[0]):
        mean = [sum(view_probs[v, i, c].item() for v in range(views)) / views for c in range(shape[1])]
        assert got[i].tolist() == pytest.approx(slow_sharpen(mean, temperature))


def recovered(mixed: Tensor, rows: Tensor) -> tuple[float, list[int]]:
    """Weight and partners of a mixture of one-hot rows, read off the mixture itself."""
    own = mixed.diagonal()
    partners = [
        i if own[i] > 1 - 1e-6 else int(mixed[i].masked_fill(rows[i] > 0, -1).argmax()) for i in range(len(rows))
    ]
    alone = [i for i, partner in enumerate(partners) if partner != i]
    return float(own[alone[0]]), partners


@pytest.mark.parametrize("dominant", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_mixup_mixes_inputs_and_targets_alike(seed: int, dominant: bool) -> None:
    rows = torch.eye(8, dtype=torch.float64)
    images = torch.randn(8, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    inputs, targets = mixup(images, rows, 0.7, torch.Generator().manual_seed(seed), dominant=dominant)
    weight, partners = recovered(targets, rows)
    assert sorted(partners) == list(range(8)), "partners are a permutation"
    for i, partner in enumerate(partners):
        assert torch.allclose(inputs[i], weight * images[i] + (1 - weight) * images[partner])
        assert torch.allclose(targets[i], weight * rows[i] + (1 - weight) * rows[partner])
    drawn = beta(0.7, torch.Generator().manual_seed(seed))
    assert weight == pytest.approx(max(drawn, 1 - drawn) if dominant else drawn, abs=1e-6)


def test_the_seeds_above_tell_a_dominant_weight_from_a_free_one() -> None:
    draws = [beta(0.7, torch.Generator().manual_seed(seed)) for seed in range(8)]
    assert min(draws) < 0.4 and max(draws) > 0.6


def test_mixup_without_alpha_changes_nothing() -> None:
    images, targets = torch.randn(5, 1, 2, 2), torch.eye(5)
    mixed = mixup(images, targets, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(mixed[0], images) and torch.equal(mixed[1], targets)


def test_mixup_of_one_row_is_that_row() -> None:
    image, target = torch.randn(1, 1, 2, 2), torch.tensor([[0.2, 0.8]])
    mixed = mixup(image, target, 4.0, torch.Generator().manual_seed(0))
    assert torch.allclose(mixed[0], image) and torch.allclose(mixed[1], target)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_beta_has_its_mean_and_variance(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([beta(alpha, generator) for _ in range(4000)], dtype=torch.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    assert draws.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 4000))
    assert draws.var().item() == pytest.approx(variance, rel=0.1)
    assert bool(((draws >= 0) & (draws <= 1)).all())


def test_beta_without_alpha_means_no_mixing() -> None:
    assert beta(0.0, torch.Generator()) == 1.0


def slow_mixmatch(
    peer: Peer,
    other: Peer,
    labeled: list[Tensor],
    unlabeled: list[Tensor],
    labels: Tensor,
    p_clean: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Rows and targets before MixUp: one image, one view, one network at a time."""

    def predict(network: Peer, image: Tensor) -> list[float]:
        network.eval()
        with torch.no_grad():
            logits = network.classifier(network.encoder(image.unsqueeze(0)))
        return [float(value) for value in logits.softmax(1)[0]]

    rows, targets = [], []
    for view in range(len(labeled)):
        for i, image in enumerate(labeled[view]):
            seen = [predict(peer, images[i]) for images in labeled]
            mean = [sum(column) / len(seen) for column in zip(*seen, strict=True)]
            w = float(p_clean[i])
            mixed = [w * float(labels[i, c]) + (1 - w) * mean[c] for c in range(4)]
            rows.append(image)
            targets.append(slow_sharpen(mixed, temperature))
    for view in range(len(unlabeled)):
        for i, image in enumerate(unlabeled[view]):
            seen = [predict(network, images[i]) for network in (peer, other) for images in unlabeled]
            rows.append(image)
            targets.append(slow_sharpen([sum(c) / len(seen) for c in zip(*seen, strict=True)], temperature))
    return torch.stack(rows), torch.tensor(targets)


def made_batch(count: int, views: int, generator: Generator) -> list[Tensor]:
    return [3 * torch.randn(count, 1, 6, 6, generator=generator) for _ in range(views)]


@pytest.mark.parametrize("unlabeled_count", [0, 1, 5])
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_mixmatch_is_the_slow_one(unlabeled_count: int, views: int, alpha: float) -> None:
    peer, other = stub_peer(0), stub_peer(1)
    generator = torch.Generator().manual_seed(2)
    labeled = made_batch(3, views, generator)
    unlabeled = made_batch(unlabeled_count, views, generator)
    labels, p_clean = torch.eye(4)[[2, 0, 3]], torch.tensor([0.9, 0.6, 0.0])
    got = mixmatch(
        peer, other, labeled, unlabeled, labels, p_clean, temperature=0.5, alpha=alpha,
        generator=torch.Generator().manual_seed(5), batch_statistics=False,
    )  # fmt: skip
    rows, targets = slow_mixmatch(peer, other, labeled, unlabeled, labels, p_clean, 0.5)
    draws = torch.Generator().manual_seed(5)
    weight = beta(alpha, draws)
    weight = max(weight, 1 - weight)
    partner = torch.randperm(len(rows), generator=draws)
    assert got.num_labeled == 3 * views
    assert torch.allclose(got.inputs, weight * rows + (1 - weight) * rows[partner], atol=1e-5)
    assert torch.allclose(got.targets, weight * targets + (1 - weight) * targets[partner], atol=1e-5)


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_mixmatch_moves_only_the_statistics_it_was_told_to(batch_statistics: bool) -> None:
    peer, other = stub_peer(0).train(), stub_peer(1).train()
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in (peer, other)]
    generator = torch.Generator().manual_seed(2)
    mixed = mixmatch(
        peer, other, made_batch(3, 2, generator), made_batch(4, 2, generator), torch.eye(4)[:3],
        torch.ones(3), temperature=0.5, alpha=4.0, generator=generator, batch_statistics=batch_statistics,
    )  # fmt: skip
    moved = {name for name, value in peer.state_dict().items() if not torch.equal(value, before[0][name])}
    statistics = {"encoder.1.running_mean", "encoder.1.running_var", "encoder.1.num_batches_tracked"}
    assert moved == (statistics if batch_statistics else set())
    # Labeled and unlabeled rows of all views went through in one forward.
    assert int(peer.state_dict()["encoder.1.num_batches_tracked"]) == int(batch_statistics)
    assert all(torch.equal(value, before[1][name]) for name, value in other.state_dict().items())
    assert peer.training and other.training
    assert not mixed.inputs.requires_grad and not mixed.targets.requires_grad
