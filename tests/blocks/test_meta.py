"""Gradients through a step of learning, beside finite differences and differentiation twice."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanmix.blocks.meta import (
    Weights,
    drawn_gates,
    example_gradients,
    gap_slope,
    gradient,
    outputs_at,
    stepped,
    synthetic_labels,
    weights_of,
    with_gradient,
)


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
    return layers.double()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 5, generator=draws, dtype=torch.float64), torch.randint(0, 3, (n,), generator=draws))
        for n in (9, 6)
    ]


def losses_at(network: nn.Module, batch: tuple[Tensor, Tensor], weights: Weights) -> Tensor:
    return F.cross_entropy(outputs_at(network, weights, batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize("training", [True, False])
def test_the_weight_of_an_example_raises_the_loss_after_the_step_as_finite_differences_say(
    training: bool, network: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    network.train(training)
    train, probe = batches
    before, share = weights_of(network), torch.full((9,), 1 / 9, dtype=torch.float64)

    def after(shares: Tensor) -> Weights:
        slope, _ = gradient(lambda at: (shares * losses_at(network, train, at)).sum(), before)
        return stepped(before, slope, 0.3)

    direction, _ = gradient(lambda at: losses_at(network, probe, at).mean(), after(share))
    found = example_gradients(lambda at: losses_at(network, train, at), before, direction, 0.3)
    for i in range(9):
        ends = [
            float(losses_at(network, probe, after(share + sign * 1e-5 * F.one_hot(torch.tensor(i), 9))).mean())
            for sign in (1, -1)
        ]
        assert float(found[i]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-8)
    assert not found.requires_grad


def test_gradients_are_those_of_backward_and_the_network_stays(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> None:
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    slope, value = gradient(lambda at: losses_at(network, batches[0], at).mean(), weights_of(network))
    assert all(torch.equal(kept[name], now) for name, now in network.state_dict().items()), "statistics, too"
    loss = F.cross_entropy(network(batches[0][0]), batches[0][1])
    loss.backward()
    assert float(value) == pytest.approx(loss.item())
    backward = {name: weight.grad for name, weight in network.named_parameters()}
    assert slope.keys() == backward.keys()
    assert all(grad is not None and torch.allclose(slope[name], grad) for name, grad in backward.items())
    network.zero_grad()
    with_gradient(network, slope).backward()
    again = {name: weight.grad for name, weight in network.named_parameters()}
    assert all(grad is not None and torch.equal(slope[name], grad) for name, grad in again.items())


def test_weights_that_rest_are_not_among_those_that_are_trained(network: nn.Module) -> None:
    assert set(weights_of(network, "3.")) == {"3.weight", "3.bias"}
    network.get_submodule("0").requires_grad_(requires_grad=False)
    assert set(weights_of(network)) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert not any(weight.requires_grad for weight in weights_of(network).values())


def test_synthetic_labels_are_those_of_near_neighbors() -> None:
    """Slow: sort the distances; a label may be that of one of the k nearest others. Just half of the rows change."""
    draws = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 4, generator=draws), torch.arange(12)  # every label is its row
    seen: list[set[int]] = [set() for _ in range(12)]
    for _ in range(60):
        found = synthetic_labels(features, labels, 3, 0.5, draws)
        changed = (found != labels).nonzero().squeeze(1).tolist()
        assert len(changed) == 6
        for row in changed:
            seen[row].add(int(found[row]))
    for row in range(12):
        distances = [(float((features[row] - features[other]).norm()), other) for other in range(12) if other != row]
        assert seen[row] == {other for _, other in sorted(distances)[:3]}


def test_synthetic_labels_of_few_rows_and_of_labels_that_are_known() -> None:
    draws, labels = torch.Generator().manual_seed(0), torch.tensor([0, 1])
    assert synthetic_labels(torch.randn(2, 3), labels, 10, 1.0, draws).tolist() == [1, 0]
    assert synthetic_labels(torch.randn(2, 3), labels, 10, 0.0, draws).tolist() == [0, 1]
    known = torch.tensor([False, True])
    assert synthetic_labels(torch.randn(2, 3), labels, 10, 1.0, draws, known).tolist() == [1, 1]


def test_gates_are_open_as_often_as_their_scores_say() -> None:
    draws, scores = torch.Generator().manual_seed(0), torch.tensor([-20.0, -1.0, 0.0, 2.0, -20.0])
    found = [drawn_gates(scores, 1, draws) for _ in range(2000)]
    opened = torch.stack([gates for gates, _ in found])
    assert set(opened.unique().tolist()) == {0, 1}
    assert torch.allclose(opened.mean(0), torch.tensor([0.0, 0.269, 0.5, 0.881, 1.0]), atol=0.03)
    slopes = torch.stack([slope for _, slope in found])
    assert float(slopes.max()) <= 0.25 and float(slopes[:, :4].min()) > 0 and float(slopes[:, 4].max()) == 0


def test_the_slope_of_the_gap_is_that_of_finite_differences() -> None:
    draws = torch.Generator().manual_seed(0)
    one, other = torch.randn(3, 4, generator=draws).double(), torch.randn(3, 4, generator=draws).double()

    def gap(entries: Tensor) -> float:
        means, deviations = ([float(f(each)) for each in (entries, other)] for f in (torch.mean, torch.std))
        return (means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2

    found = gap_slope(one, other)
    for place in range(12):
        moved = 1e-6 * F.one_hot(torch.tensor(place), 12).view(3, 4)
        assert float(found.flatten()[place]) == pytest.approx((gap(one + moved) - gap(one - moved)) / 2e-6, abs=1e-6)
