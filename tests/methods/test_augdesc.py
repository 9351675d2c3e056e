"""AugDesc: targets come from weak views, what is learned are strong views of the same images; the rest is DivideMix."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import scanmix.methods.dividemix as module
from scanmix.data.batches import TrainingData
from scanmix.data.views import Views
from scanmix.distributed.engine import Engine
from scanmix.methods.augdesc import AugDesc
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.steps.mixmatch import Mixed, mixmatch
from scanmix.networks.peer import Peer
from tests.methods.tiny import Network, near, run, weights
from tests.tiny import settings, tiny_method


def test_strong_views_have_the_targets_of_weak_ones(data: TrainingData, network: Network) -> None:
    """Unmixed: the inputs are those that are learned, the targets those without them."""
    method = tiny_method("augdesc")
    peer, other = method.start(data, network, Engine()).peers
    x, u = torch.arange(8), torch.arange(8, 13)
    draws = Generator().manual_seed(0)
    weak = data.sample_views(data.views.weak, (x, x, u, u), draws)
    strong = data.sample_views(data.views.strong, (x, x, u, u), draws)

    def mixed(*learned: Any) -> Mixed:
        more = (data.one_hot(x), torch.linspace(0, 1, 8), 0.5, 0.0, Generator().manual_seed(1), False)
        return mixmatch(peer, other, weak[:2], weak[2:], *more, *learned)

    found, wanted = mixed(strong), mixed()
    assert torch.equal(found.inputs, torch.cat(strong)) and not torch.equal(found.inputs, wanted.inputs)
    assert torch.equal(found.targets, wanted.targets) and found.num_labeled == wanted.num_labeled == 16


def test_views_of_a_step(data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two weak and two strong views of each image of a step, in the same order; warm-up has weak ones alone."""
    numbered = dataclasses.replace(
        data, images=torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1).expand(64, 1, 8, 8)
    )
    seen: dict[str, list[Tensor]] = {"weak": [], "strong": []}
    for kind, of_kind in seen.items():
        honest = getattr(Views, kind)

        def looked(self: Views, images: Tensor, *more: Any, of_kind: Any = of_kind, honest: Any = honest) -> Any:
            of_kind.append(images[:, 0, 0, 0])
            return honest(self, images, *more)

        monkeypatch.setattr(Views, kind, looked)
    method = tiny_method("augdesc", 2)
    state = method.start(numbered, network, Engine())
    method.epoch(state, numbered, 0)
    assert seen["weak"] and not seen["strong"]
    seen["weak"].clear()
    method.epoch(state, numbered, 1)
    assert seen["strong"] and len(seen["weak"]) == len(seen["strong"])
    assert all(torch.equal(weak, strong) for weak, strong in zip(seen["weak"], seen["strong"], strict=True))


def test_with_the_same_views_it_is_dividemix(
    data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings("augdesc", 3)
    wanted = weights(run(DivideMix(**plain), data, network).peers[0])
    assert not near(weights(run(AugDesc(**plain), data, network).peers[0]), wanted, atol=1e-3)

    honest: Any = mixmatch

    def same(peer: Peer, other: Peer, labeled: Any, unlabeled: Any, *more: Any) -> Any:
        return honest(peer, other, labeled, unlabeled, *more[:-1], [*labeled, *unlabeled])

    monkeypatch.setattr(module, "mixmatch", same)
    monkeypatch.setattr(AugDesc, "learned_views", lambda *_: [])
    assert near(weights(run(AugDesc(**plain), data, network).peers[0]), wanted)
