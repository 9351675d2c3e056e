"""Inferred classes on made groups: many wrong labels, one-way noise, unequal classes, groups that tell little."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import scanmix.blocks.inferred_classes as module
from scanmix.blocks import class_shares, noise_model
from scanmix.blocks.class_shares import likeliest_shares
from scanmix.blocks.inferred_classes import infer_classes
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.blocks.propagation import neighbor_graph, neighbor_scores, own_share
from scanmix.blocks.ridge import principal_components
from scanmix.data.noise import symmetric


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def groups(sizes: tuple[int, ...], apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points and true classes."""
    true = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return apart * torch.eye(max(len(sizes), 8))[true] + made(len(true), max(len(sizes), 8), seed=seed), true


def one_way(true: Tensor, lost: float, seed: int = 0) -> Tensor:
    """Labels; a share `lost` of those of class 0 goes to class 1."""
    return torch.where((true == 0) & (torch.rand(len(true), generator=seeded(seed + 9)) < lost), 1, true)


def inferred(points: Tensor, labels: Tensor, classes: int, trusted: Tensor | None = None) -> module.Inferred:
    components = principal_components(points, seeded())
    return infer_classes(nearest_neighbors(points, 10), components, labels, classes, seeded(), trusted)


def spread_of(points: Tensor) -> tuple[Tensor, Tensor]:
    """Graph of neighbors, and share of each own label."""
    graph = neighbor_graph(nearest_neighbors(points, 10))
    return graph, own_share(graph, seeded())


def whole(count: int) -> tuple[Tensor, Tensor]:
    """All labels are propagated first, and none is hidden."""
    return torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)


def right(found: Tensor, true: Tensor) -> float:
    return float((found.argmax(1) == true).float().mean())


@pytest.mark.parametrize("seed", range(3))
def test_most_labels_may_be_wrong(seed: int) -> None:
    points, true = groups((80,) * 5, 5.0, seed)
    labels = symmetric(true, 0.85, 5, seed)
    found = inferred(points, labels, 5)
    assert right(F.one_hot(labels, 5), true) < 0.4 and right(found.posterior, true) > 0.9
    torch.testing.assert_close(found.posterior.sum(1), torch.ones(400))


def test_rounds_are_for_groups_and_one_for_points_that_tell_little() -> None:
    points, true = groups((150,) * 5, 5.0)
    assert inferred(points, symmetric(true, 0.85, 5, 0), 5).in_rounds
    points, true = groups((150,) * 5, 1.2)
    labels = symmetric(true, 0.2, 5, 0)
    found = inferred(points, labels, 5)
    assert not found.in_rounds
    links = module._Links(*(spread_of(points)), torch.full((5,), 0.2))
    *_, (_, settled) = module._in_rounds(links, labels, *whole(750), None)
    assert right(found.posterior, true) > right(settled, true)


def test_rounds_are_believed_from_the_margin_on() -> None:
    points, true = groups((150,) * 5, 2.0)
    labels = symmetric(true, 0.8, 5, 0)
    neighbors, components, draws = nearest_neighbors(points, 10), principal_components(points, seeded()), seeded()
    graph = neighbor_graph(neighbors)
    diagonal = own_share(graph, draws)
    scores = neighbor_scores(graph, F.one_hot(labels, 5).float(), diagonal)
    links = module._Links(graph, diagonal, likeliest_shares(scores, labels))
    lead = module._lead_of_rounds(links, labels, draws, None)
    lost = won = 0
    fold = torch.randperm(750, generator=at_folds(neighbors)) % 5
    for number in range(5):
        hidden = fold == number
        first, *_, last = (v for v, _ in module._in_rounds(links, labels, ~hidden, hidden, None))
        for row in hidden.nonzero().squeeze(1).tolist():
            before, after = int(first[row].argmax()) == int(labels[row]), int(last[row].argmax()) == int(labels[row])
            lost, won = lost + (before and not after), won + (after and not before)
    assert lost + won and lead == pytest.approx((won - lost) / (won + lost) ** 0.5)
    for margin, in_rounds in ((lead - 0.01, True), (lead + 0.01, False)):
        assert infer_classes(neighbors, components, labels, 5, seeded(), margin=margin).in_rounds is in_rounds


def at_folds(neighbors: Tensor) -> Generator:
    """The generator as it is when the folds are drawn."""
    draws = seeded()
    own_share(neighbor_graph(neighbors), draws)
    return draws


def test_the_graph_is_built_once_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    points, true = groups((150,) * 5, 1.2)
    built: list[str] = []
    for where in (module, noise_model):
        for name in ("neighbor_graph", "own_share"):
            honest = getattr(where, name)

            def watched(*given: object, honest: Callable[..., Tensor] = honest, name: str = name) -> Tensor:
                built.append(name)
                return honest(*given)

            monkeypatch.setattr(where, name, watched)
    assert not inferred(points, symmetric(true, 0.2, 5, 0), 5).in_rounds
    assert built == ["neighbor_graph", "own_share"]


@pytest.mark.parametrize("seed", range(3))
def test_a_class_that_loses_labels_to_one_other_keeps_its_size(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, true = groups((100,) * 4, 5.0, seed)
    labels = one_way(true, 0.45, seed)
    balanced = right(inferred(points, labels, 4).posterior, true)
    monkeypatch.setattr(class_shares, "EVEN", (0.0,))
    assert balanced > 0.97 and balanced > right(inferred(points, labels, 4).posterior, true)


@pytest.mark.parametrize("sizes", [(120, 120, 120), (240, 60, 24)])
def test_the_shares_that_are_found_are_nearer_to_the_true_ones(sizes: tuple[int, ...]) -> None:
    points, true = groups(sizes, 5.0)
    labels = one_way(true, 0.4)
    graph, diagonal = spread_of(points)
    found = likeliest_shares(neighbor_scores(graph, F.one_hot(labels, 3).float(), diagonal), labels)
    wanted, seen = (classes.bincount(minlength=3) / len(true) for classes in (true, labels))
    assert float(found.sum()) == pytest.approx(1)
    if sizes == (120, 120, 120):
        assert float((found - wanted).abs().sum()) < 0.6 * float((seen - wanted).abs().sum())
    else:
        assert float(found[2]) < 0.15, "even shares are no rule"


def test_a_class_without_labels_gets_no_share() -> None:
    points, true = groups((120, 120, 120), 5.0)
    labels = one_way(true, 0.4)
    graph, diagonal = spread_of(points)
    found = likeliest_shares(neighbor_scores(graph, F.one_hot(labels, 7).float(), diagonal), labels)
    assert float(found[3:].sum()) == 0 and float(found.sum()) == pytest.approx(1) and float(found[:3].min()) > 0.2


def test_labels_that_are_known_stay_and_are_never_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    points, true = groups((60,) * 3, 5.0)
    known, labels = torch.arange(180) % 9 == 0, one_way(true, 0.4)
    seen: list[Tensor] = []
    honest = module._in_rounds

    def watched(links: module._Links, labels: Tensor, first: Tensor, hidden: Tensor, *more: object) -> object:
        seen.append(hidden)
        return honest(links, labels, first, hidden, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_in_rounds", watched)
    found = inferred(points, labels, 3, known).posterior
    assert torch.equal(found[known], torch.eye(3)[labels[known]])
    assert right(found[~known], true[~known]) > 0.95
    hidden = torch.stack(seen[: module.FOLDS])
    assert torch.equal(hidden.sum(0), (~known).long()), "each other label is hidden once"


def test_what_a_hidden_label_says_changes_nothing_of_what_is_seen_of_others() -> None:
    points, true = groups((40,) * 3, 3.0)
    labels = symmetric(true, 0.3, 3, 0)
    graph = neighbor_graph(nearest_neighbors(points, 5))
    links = module._Links(graph, own_share(graph, seeded()), torch.full((3,), 1 / 3))
    hidden = torch.arange(120) % 4 == 0
    other = torch.where(hidden, (labels + 1) % 3, labels)
    first, second = (module._in_rounds(links, given, ~hidden, hidden, None) for given in (labels, other))
    for (v, found), (w, again) in zip(first, second, strict=True):
        torch.testing.assert_close(v, w)
        torch.testing.assert_close(found, again)
        assert torch.equal(v[hidden], found[hidden])


@pytest.mark.parametrize("known", [False, True])
def test_few_examples_of_one_class_or_all_known(known: bool) -> None:
    labels = torch.zeros(12, dtype=torch.int64) if not known else torch.arange(12) % 3
    trusted = torch.ones(12, dtype=torch.bool) if known else None
    found = inferred(made(12, 4), labels, 3, trusted).posterior
    assert bool(found.isfinite().all()) and torch.equal(found.argmax(1), labels)


def test_the_likeliest_of_several_starts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start settles on classes that are exchanged: another one finds the right ones."""
    points, true = groups((60,) * 3, 6.0)
    labels = symmetric(true, 0.3, 3, 0)
    honest, calls = module._in_rounds, []

    def first_is_mistaken(links: module._Links, labels: Tensor, *more: object) -> object:
        calls.append(1)
        for v, found in honest(links, labels, *more):  # type: ignore[arg-type]
            yield (v.roll(1, 1), found.roll(1, 1)) if len(calls) == 1 else (v, found)

    monkeypatch.setattr(module, "_in_rounds", first_is_mistaken)
    links = module._Links(*spread_of(points), torch.full((3,), 1 / 3))
    assert right(module._settled(links, labels, seeded(), None), true) > 0.98
    assert len(calls) == 4, "the second is the likeliest so far, and two more are like it"
