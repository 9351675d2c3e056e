"""Propagation against dense matrices in float64: the inverse, every label left out in turn, plain balancing."""

import pytest
import torch
from torch import Generator, Tensor

import scanmix.blocks.propagation as module
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share, propagate, sinkhorn

SIZES = [(2, 1), (9, 3), (40, 5), (40, 39)]


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def near(count: int, k: int, seed: int = 0) -> Tensor:
    return nearest_neighbors(made(count, 3, seed=seed), k)


def probs(count: int, classes: int, seed: int = 0) -> Tensor:
    return made(count, classes, seed=seed).softmax(1)


def slow_graph(neighbors: Tensor) -> Tensor:
    count = len(neighbors)
    weights = torch.zeros(count, count, dtype=torch.float64)
    for i, row in enumerate(neighbors.tolist()):
        for j in row:
            if j != i:
                weights[i, j] = weights[j, i] = 1
    degree = weights.sum(1)
    found = torch.zeros_like(weights)
    for i in range(count):
        for j in range(count):
            if weights[i, j]:
                found[i, j] = weights[i, j] / (degree[i] * degree[j]).sqrt()
    return found


def slow_matrix(neighbors: Tensor, alpha: float = 0.95) -> Tensor:
    """(1 - alpha) (I - alpha S)^-1."""
    system = torch.eye(len(neighbors), dtype=torch.float64) - alpha * slow_graph(neighbors)
    inverse: Tensor = torch.linalg.inv(system)
    return (1 - alpha) * inverse


def slow_scores(neighbors: Tensor, class_probs: Tensor) -> Tensor:
    """Each example gets what is propagated to it once its own label is gone; then columns are standardized."""
    matrix, centered = slow_matrix(neighbors), class_probs.double() - class_probs.double().mean(0)
    rows = []
    for i in range(len(centered)):
        without = centered.clone()
        without[i] = 0
        rows.append((matrix @ without)[i])
    scores = torch.stack(rows)
    scores -= scores.mean(0)
    return scores / scores.std(0, correction=0)


def slow_sinkhorn(scores: Tensor, marginal: Tensor, rounds: int) -> Tensor:
    found = scores.double()
    for _ in range(rounds):
        found = found / found.sum(1, keepdim=True)
        found = found * marginal.double() / found.mean(0)
    return found / found.sum(1, keepdim=True)


@pytest.mark.parametrize(("count", "k"), SIZES)
def test_the_graph_is_that_of_all_pairs(count: int, k: int) -> None:
    neighbors = near(count, k)
    graph = neighbor_graph(neighbors)
    assert graph.layout == torch.sparse_csr and graph.dtype == torch.float32
    assert len(graph.values()) <= 2 * count * k
    dense = graph.to_dense().double()
    torch.testing.assert_close(dense, slow_graph(neighbors), atol=1e-7, rtol=1e-6)
    assert torch.equal(dense, dense.T)
    assert float(torch.linalg.eigvalsh(dense).abs().max()) <= 1 + 1e-6


def test_a_pair_counts_once_and_an_example_is_not_its_own_neighbor() -> None:
    neighbors = torch.tensor([[1, 1], [0, 2], [2, 2], [3, 3]])  # 0-1 four times; 2 has only 1; 3 has none
    half = 0.5**0.5
    expected = torch.tensor([[0, half, 0, 0], [half, 0, half, 0], [0, half, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(neighbor_graph(neighbors).to_dense(), expected)


def test_one_example_has_no_edge() -> None:
    graph = neighbor_graph(torch.empty(1, 0, dtype=torch.int64))
    assert graph.shape == (1, 1) and len(graph.values()) == 0
    torch.testing.assert_close(propagate(graph, torch.ones(1, 2)), torch.full((1, 2), 0.05))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.95, 0.99])
@pytest.mark.parametrize(("count", "k"), SIZES)
def test_propagation_is_the_inverse(count: int, k: int, alpha: float) -> None:
    neighbors, start = near(count, k), made(count, 4, seed=1)
    found = propagate(neighbor_graph(neighbors), start, alpha, products=150)
    expected = slow_matrix(neighbors, alpha) @ start.double()
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("products", [0, 1, 2, 5, 10, 20])
def test_the_error_of_few_products_is_bounded_as_stated(products: int, alpha: float) -> None:
    neighbors, start = near(200, 5), made(200, 3, seed=1)
    expected = slow_matrix(neighbors, alpha) @ start.double()
    error = (propagate(neighbor_graph(neighbors), start, alpha, products).double() - expected).norm(dim=0)
    factor = alpha / (1 + (1 - alpha**2) ** 0.5)
    assert bool((error <= 2 * factor**products * expected.norm(dim=0) + 1e-6).all())


def test_the_default_products_are_better_than_the_plain_iteration_with_as_many() -> None:
    neighbors, start = near(300, 8), made(300, 3, seed=1)
    graph, plain = slow_graph(neighbors), start.double()
    expected = slow_matrix(neighbors) @ start.double()
    for _ in range(module.PRODUCTS):
        plain = 0.95 * graph @ plain + 0.05 * start.double()
    error = (propagate(neighbor_graph(neighbors), start).double() - expected).norm() / expected.norm()
    assert error < 4e-3 < (plain - expected).norm() / expected.norm()


@pytest.mark.parametrize("width", [1, 2, 5, 100])
def test_columns_are_propagated_alone(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    graph, start = neighbor_graph(near(30, 4)), made(30, 5, seed=1)
    expected = propagate(graph, start)
    monkeypatch.setattr(module, "WIDTH", width)
    torch.testing.assert_close(propagate(graph, start), expected)


def test_propagation_keeps_its_input() -> None:
    start = made(30, 5)
    before = start.clone()
    propagate(neighbor_graph(near(30, 4)), start)
    neighbor_scores(neighbor_graph(near(30, 4)), start, torch.zeros(30))
    sinkhorn(start, torch.full((5,), 0.2))
    assert torch.equal(start, before)


@pytest.mark.parametrize(("count", "k"), SIZES)
def test_the_own_share_is_the_diagonal_of_the_inverse(count: int, k: int) -> None:
    neighbors = near(count, k)
    found = own_share(neighbor_graph(neighbors), Generator().manual_seed(0), products=40, probes=20_000)
    torch.testing.assert_close(found.double(), slow_matrix(neighbors).diagonal(), atol=4e-3, rtol=0.02)


@pytest.mark.parametrize("alpha", [0.3, 0.95])
@pytest.mark.parametrize("probes", [1, 7, 48])
def test_the_estimate_is_the_known_steps_and_the_mean_of_the_others(probes: int, alpha: float) -> None:
    neighbors = near(40, 5)
    graph = slow_graph(neighbors)
    steps = (1 - alpha) * (torch.eye(40) + alpha * graph + alpha**2 * graph @ graph)
    signs = 2 * torch.randint(2, (40, probes), generator=Generator().manual_seed(0)).double() - 1
    others = (signs * ((slow_matrix(neighbors, alpha) - steps) @ signs)).mean(1)
    found = own_share(neighbor_graph(neighbors), Generator().manual_seed(0), alpha, products=60, probes=probes)
    expected = steps.diagonal() + others.clamp(min=0)
    torch.testing.assert_close(found.double(), expected.clamp(max=1), atol=1e-5, rtol=1e-4)


def test_few_probes_are_near_and_closer_than_without_the_known_steps() -> None:
    neighbors = near(400, 10)
    graph, truth = neighbor_graph(neighbors), slow_matrix(neighbors).diagonal()
    error = (own_share(graph, Generator().manual_seed(0)).double() - truth).square().mean().sqrt()
    signs = made(400, module.PROBES, seed=2).sign()
    plain = ((signs * propagate(graph, signs)).mean(1).double() - truth).square().mean().sqrt()
    assert error < 0.15 * truth.mean() and error < 0.85 * plain


def test_an_isolated_example_has_exactly_its_share() -> None:
    neighbors = torch.tensor([[1], [0], [2]])
    found = own_share(neighbor_graph(neighbors), Generator().manual_seed(0), alpha=0.9)
    torch.testing.assert_close(found[2], torch.tensor(0.1))
    assert float(found[0]) > 0.1


def test_probes_come_from_the_generator() -> None:
    graph = neighbor_graph(near(40, 5))
    first, again, other = (own_share(graph, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("probes", [1, 63, 64, 65, 130])
def test_all_probes_are_used(monkeypatch: pytest.MonkeyPatch, probes: int) -> None:
    drawn = []
    draw = torch.randint

    def counted(high: int, size: tuple[int, int], **more: Generator) -> Tensor:
        drawn.append(size[1])
        return draw(high, size, **more)  # type: ignore[no-any-return, call-overload]

    monkeypatch.setattr(torch, "randint", counted)
    own_share(neighbor_graph(near(9, 3)), Generator().manual_seed(0), probes=probes)
    assert sum(drawn) == probes and max(drawn) <= module.WIDTH


@pytest.mark.parametrize(("count", "k"), [(3, 1), (9, 3), (40, 5), (150, 10)])
@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_those_with_every_label_left_out_in_turn(count: int, k: int, classes: int) -> None:
    neighbors, class_probs = near(count, k), probs(count, classes, seed=3)
    exact = slow_matrix(neighbors).diagonal().float()
    found = neighbor_scores(neighbor_graph(neighbors), class_probs, exact)
    torch.testing.assert_close(found.double(), slow_scores(neighbors, class_probs), atol=0.02, rtol=0.02)


def test_an_own_label_does_not_move_its_scores() -> None:
    """Two examples that are alike but for their own label stand alike; with the own label in they would not."""
    neighbors = torch.tensor([[2, 3], [2, 3], [3, 0], [2, 1]])
    labels = torch.eye(2)[[0, 1, 0, 1]]
    graph, exact = neighbor_graph(neighbors), slow_matrix(neighbors).diagonal().float()
    scores = neighbor_scores(graph, labels, exact)
    with_own = neighbor_scores(graph, labels, torch.zeros(4))
    assert float(scores[0, 0]) < float(scores[1, 0])  # 0 sees the label of 1, and 1 that of 0
    assert float(with_own[0, 0]) > float(with_own[1, 0])


def test_constant_columns_get_zeros() -> None:
    """Their mean is not exactly their value, and rounding must not become a score."""
    class_probs = torch.full((23, 3), 0.1)
    class_probs[:10, 1] = 0.5
    assert float((class_probs[:, 0] - class_probs[:, 0].mean()).abs().max()) > 0
    scores = neighbor_scores(neighbor_graph(near(23, 3)), class_probs, torch.full((23,), 0.1))
    assert torch.equal(scores[:, [0, 2]], torch.zeros(23, 2))
    torch.testing.assert_close(scores[:, 1].std(correction=0), torch.tensor(1.0))


@pytest.mark.parametrize("count", [1, 2])
def test_scores_of_one_and_two_examples_are_finite(count: int) -> None:
    neighbors = torch.zeros(1, 0, dtype=torch.int64) if count == 1 else torch.tensor([[1], [0]])
    graph = neighbor_graph(neighbors)
    scores = neighbor_scores(graph, torch.eye(2)[:count], own_share(graph, Generator().manual_seed(0)))
    assert bool(scores.isfinite().all()) and scores.shape == (count, 2)


@pytest.mark.parametrize("chunk", [1, 7, 50, 8192])
@pytest.mark.parametrize("rounds", [0, 1, 3, 30])
@pytest.mark.parametrize("classes", [1, 2, 6])
def test_sinkhorn_is_plain_balancing(monkeypatch: pytest.MonkeyPatch, chunk: int, rounds: int, classes: int) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    scores, marginal = 2 * made(50, classes), made(classes, seed=1).softmax(0)
    found = sinkhorn(scores, marginal, rounds)
    torch.testing.assert_close(found.double(), slow_sinkhorn(scores.exp(), marginal, rounds), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(50))


def test_enough_rounds_reach_the_marginal() -> None:
    marginal = torch.tensor([0.7, 0.2, 0.1])
    found = sinkhorn(made(200, 3), marginal)
    torch.testing.assert_close(found.mean(0), marginal, atol=1e-5, rtol=1e-4)
    assert float((sinkhorn(made(200, 3), marginal, 0).mean(0) - marginal).abs().max()) > 0.1


@pytest.mark.parametrize("temperature", [1e2, 1e4, 1e6])
def test_nothing_overflows(temperature: float) -> None:
    found = sinkhorn(temperature * made(60, 4), torch.full((4,), 0.25))
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sum(1), torch.ones(60))


def test_a_class_that_is_far_behind_everywhere_gets_its_share() -> None:
    scores = torch.cat([made(100, 2), made(100, 1, seed=1) - 500], 1)
    marginal = torch.tensor([0.4, 0.4, 0.2])
    torch.testing.assert_close(sinkhorn(scores, marginal, 60).mean(0), marginal, atol=1e-4, rtol=1e-3)


def test_a_class_of_marginal_zero_gets_nothing() -> None:
    scores = made(50, 3)
    scores[:, 1] += 50
    found = sinkhorn(scores, torch.tensor([0.5, 0.0, 0.5]))
    assert float(found[:, 1].max()) == 0
    torch.testing.assert_close(found[:, [0, 2]], sinkhorn(scores[:, [0, 2]], torch.tensor([0.5, 0.5])))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_balanced_propagation_is_its_dense_parts(temperature: float) -> None:
    neighbors, class_probs = near(80, 6), probs(80, 4, seed=5)
    exact, marginal = slow_matrix(neighbors).diagonal().float(), class_probs.mean(0)
    found = sinkhorn(temperature * neighbor_scores(neighbor_graph(neighbors), class_probs, exact), marginal)
    expected = slow_sinkhorn((temperature * slow_scores(neighbors, class_probs)).exp(), marginal, 30)
    torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found.sum(1), torch.ones(80))


def test_two_groups_get_back_their_label() -> None:
    """Points in two far groups, one duplicated ten times; one label in five is of the other group."""
    groups = torch.arange(60) % 2
    features = torch.eye(3)[groups] + 0.1 * made(60, 3)
    features[:20:2] = features[0]
    labels = torch.where(torch.arange(60) // 2 % 5 == 0, 1 - groups, groups)
    graph = neighbor_graph(nearest_neighbors(features, 5))
    share = own_share(graph, Generator().manual_seed(0))
    v = sinkhorn(2.0 * neighbor_scores(graph, torch.eye(2)[labels], share), torch.full((2,), 0.5))
    assert int((labels == groups).sum()) == 48
    assert float((v.argmax(1) == groups).float().mean()) >= 0.95
