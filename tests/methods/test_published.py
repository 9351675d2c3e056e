"""Values and steps that published code has: epochs of stages, votes, batch statistics, views, drops, mixtures."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from torch import Tensor

import scanmix.methods.mentormix as mentormix
import scanmix.methods.ssr as ssr
from scanmix.blocks.divide import clean_probabilities, normalize_losses
from scanmix.blocks.robust import NO_ZERO, running_targets
from scanmix.blocks.selection import moving_percentile, wins_vote
from scanmix.config import epochs_in
from scanmix.data.batches import TrainingData
from scanmix.data.views import Views
from scanmix.data.views.sampling import View
from scanmix.distributed.engine import Engine
from scanmix.methods import Method
from scanmix.methods.co_teaching_plus import CoTeachingPlus
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.elr_plus import ELRPlus
from scanmix.methods.joint import Joint
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.pencil import Pencil
from scanmix.methods.scan_dividemix import ScanDivideMix
from scanmix.methods.scanmix import ScanMix
from scanmix.methods.ssr import SSR
from scanmix.methods.steps.schedule import rate_after_drops
from scanmix.networks.inference import predict_all, unchanged_statistics
from tests.methods.tiny import Network, near, run

CIFAR = 45_000
"""Training images of PENCIL and Joint; a step is a batch of 128."""


def test_stages_of_pencil_and_joint_end_with_epochs_70_and_200() -> None:
    pencil, joint = Pencil(), Joint()
    for method, first, second in ((pencil, pencil.fixed, pencil.moving), (joint, joint.begin, joint.joint)):
        ends = [epochs_in(end, CIFAR, method.batch_size, method.epochs) for end in (first, second)]
        assert ends == [70, 200]


def test_rates_of_pencil_drop_at_240_and_280(data: TrainingData, network: Network) -> None:
    method = Pencil(batch_size=64)
    state = method.start(data, network, Engine())
    rates = {epoch: method.epoch(state, data, epoch)["rate/learn"] for epoch in (199, 200, 239, 240, 279, 280)}
    assert rates == pytest.approx({199: 0.06, 200: 0.2, 239: 0.2, 240: 0.02, 279: 0.02, 280: 0.002})


@pytest.mark.parametrize("clamp", [0.0, NO_ZERO])
def test_elr_plus_averages_probabilities_as_they_are(
    clamp: float, data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is certain gives targets of exactly 0 and 1, unless they are kept from it as in ELR."""
    method = replace(ELRPlus(epochs=1, batch_size=64, memory=0.0), clamp=clamp)
    state = method.start(data, network, Engine())
    with torch.no_grad():
        for average in state.averages:
            average.classifier.weight.zero_()
            average.classifier.bias.copy_(torch.tensor([200.0, 0.0, 0.0, 0.0]))
    method.epoch(state, data, 0)
    wanted = torch.tensor([1 - clamp, clamp, clamp, clamp])
    assert torch.equal(state.targets[0], (wanted / wanted.sum()).expand(64, 4))


def test_running_targets_by_hand() -> None:
    logits, before = torch.tensor([[12.0, 0.0, -3.0]]), torch.tensor([[0.2, 0.5, 0.3]])
    exponentials = [math.exp(value) for value in (12.0, 0.0, -3.0)]
    plain = [value / sum(exponentials) for value in exponentials]
    kept = [min(max(value, 1e-4), 1 - 1e-4) for value in plain]
    for clamp, probabilities in ((0.0, plain), (1e-4, [value / sum(kept) for value in kept])):
        wanted = [0.7 * old + 0.3 * new for old, new in zip((0.2, 0.5, 0.3), probabilities, strict=True)]
        assert running_targets(before, logits, 0.7, clamp)[0].tolist() == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("include_self", [True, False])
def test_an_image_of_ssr_is_one_of_its_k_voters(
    include_self: bool, data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The voters are the k largest cosines of a row: the image has the largest one with itself."""
    asked: list[Tensor] = []

    def spy(labels: Tensor, voters: Tensor, classes: int, threshold: float) -> Tensor:
        asked.append(voters)
        return wins_vote(labels, voters, classes, threshold)

    monkeypatch.setattr(ssr, "wins_vote", spy)
    method = SSR(epochs=1, batch_size=16, num_neighbors=6, include_self=include_self)
    state = method.start(data, network, Engine())
    unit = F.normalize(predict_all(state.peers[0].encoder, data).double(), dim=1)
    cosine = unit @ unit.T
    if not include_self:
        cosine.fill_diagonal_(-2)
    method.epoch(state, data, 0)
    wanted = [set(row) for row in cosine.topk(6).indices.tolist()]
    assert [set(row) for row in asked[0].tolist()] == wanted
    assert all((number in row) is include_self for number, row in enumerate(wanted))


def test_ssr_asks_at_least_one_other_image(data: TrainingData, network: Network) -> None:
    assert run(SSR(epochs=1, batch_size=16, num_neighbors=1), data, network).p_clean is not None


@pytest.mark.parametrize("choice", ["batch", "running"])
def test_mentormix_weights_by_batch_statistics_and_leaves_the_running_ones_alone(
    choice: Literal["batch", "running"], data: TrainingData, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = MentorMix(epochs=2, batch_size=64, burn_in=0, quantile=0.5, weight_statistics=choice)
    state = method.start(data, network, Engine())
    peer = state.peers[0]
    for buffer in (buffer for name, buffer in peer.named_buffers() if name.endswith("running_mean")):
        buffer.add_(0.5)  # so that the two kinds of statistics differ
    found: list[Tensor] = []

    def spy(before: float | Tensor | None, losses: Tensor, share: float, decay: float) -> Tensor:
        found.append(losses.detach().clone())
        buffers.append([buffer.clone() for buffer in peer.buffers()])
        return moving_percentile(before, losses, share, decay)

    buffers: list[list[Tensor]] = [[buffer.clone() for buffer in peer.buffers()]]
    order, draws = data.generators("learn", 0, "order", "views")
    index = torch.randperm(64, generator=order)
    monkeypatch.setattr(mentormix, "moving_percentile", spy)
    monkeypatch.setattr(mentormix, "batches", lambda *_: [index])
    with torch.no_grad(), unchanged_statistics(peer):
        peer.train(choice == "batch")
        logits = peer.classifier(peer.encoder(data.views.weak(data.images[index], draws)))
    method.epoch(state, data, 0)
    assert torch.allclose(found[0], F.cross_entropy(logits, data.labels[index], reduction="none"), atol=1e-5)
    assert near(buffers[0], buffers[1]), "the first look moves no running statistics"
    tracked = [buffer for name, buffer in peer.named_buffers() if name.endswith("num_batches_tracked")]
    assert all(int(count) == 1 for count in tracked), "the mixed images alone do"


def test_released_co_teaching_plus_keeps_all_where_none_would_be_kept() -> None:
    logits = [torch.eye(4)[[0, 1, 2, 3]], torch.eye(4)[[1, 0, 2, 3]]]  # the first two predictions differ
    losses = [torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 1.0, 3.0, 4.0])]
    paper, released = CoTeachingPlus(alike=1), CoTeachingPlus(alike=1, fidelity="released")
    assert [rows.tolist() for rows in paper.choose(logits, losses, 0.2, 1)] == [[1], [0]]
    assert [rows.tolist() for rows in released.choose(logits, losses, 0.2, 1)] == [[1, 0], [0, 1]]
    for method in (paper, released):  # half of two is one
        assert [rows.tolist() for rows in method.choose(logits, losses, 0.5, 1)] == [[1], [0]]


def test_gradual_of_9_epochs_is_the_forget_rate_of_released_co_teaching(data: TrainingData, network: Network) -> None:
    method = CoTeachingPlus(epochs=12, batch_size=64, gradual="9 epochs", forget_rate=0.4)
    state = method.start(data, network, Engine())
    found = [method.epoch(state, data, epoch)["left_out"] for epoch in range(12)]
    assert found == pytest.approx([*np.linspace(0, 0.4, 10), 0.4, 0.4])


def views_of(method: Any, data: TrainingData, network: Network, epochs: int, patch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of view that a run asks for, in order; each pass over the images asks once."""
    asked: list[str] = []
    drawn = Views.random_view

    def spy(views: Views, kind: Literal["weak", "strong"]) -> View:
        asked.append(kind)
        return drawn(views, kind)

    patch.setattr(Views, "random_view", spy)
    run(method, data, network, epochs)
    return asked


@pytest.mark.parametrize("severe_noise", [0.0, 1.0])
@pytest.mark.parametrize("cluster_view", ["weak", "strong", None])
def test_the_view_of_the_clustering_loss_is_a_field(
    scanmix: ScanMix,
    data: TrainingData,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    severe_noise: float,
    cluster_view: Literal["weak", "strong"] | None,
) -> None:
    """As the code for Red Mini-ImageNet and WebVision has it: l_MLE weak and l_CLU strong, at any rate of noise."""
    method = replace(
        scanmix, warmup_view="weak", severe_noise=severe_noise, cluster_rate=1e-3, cluster_view=cluster_view
    )
    usual = "strong" if severe_noise == 0.0 else "weak"
    kinds = views_of(method, data, network, 2, monkeypatch)
    clustered = cluster_view or usual
    assert kinds[-4:] == [usual, usual, clustered, clustered], "two networks by l_MLE, then both by l_CLU"
    assert set(kinds[:-4]) <= {"weak"}, "warm-up"


def test_the_views_of_the_clustering_loss_are_counted(scanmix: ScanMix) -> None:
    usual = scanmix.passes(64, 0.5)["training"]
    strong = replace(scanmix, cluster_view="strong").passes(64, 0.5)["training"]
    turns = scanmix.epochs - 1
    pairs = 2 * 2 * 64
    assert (usual.strong - strong.strong, strong.weak - usual.weak) == (-turns * pairs, -turns * pairs)


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_the_view_of_warm_up_of_scan_dividemix_is_a_field(
    kind: Literal["weak", "strong"],
    methods: Callable[..., dict[str, Method]],
    data: TrainingData,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = methods(3)["scan_dividemix"]
    assert isinstance(method, ScanDivideMix)
    asked = views_of(replace(method, warmup_view=kind), data, network, 1, monkeypatch)
    assert asked == [kind, kind]
    views = replace(method, warmup_view=kind).passes(64, 0.5)["training"]
    other = replace(method, warmup_view="strong").passes(64, 0.5)["training"]
    assert other.strong - views.strong == (2 * 64 if kind == "weak" else 0)


@pytest.mark.parametrize("method", [ScanMix(), DivideMix()])
def test_the_learning_rate_drops_twice_where_a_recipe_says_so(method: ScanMix | DivideMix) -> None:
    once = [rate_after_drops(method, 50_000, epoch) for epoch in (0, 149, 150, 299)]
    assert once == pytest.approx([0.02, 0.02, 0.002, 0.002])
    twice = replace(method, lr_drop="200 epochs", lr_second_drop="250 epochs")
    found = [rate_after_drops(twice, 50_000, epoch) for epoch in (199, 200, 249, 250, 299)]
    assert found == pytest.approx([0.02, 0.002, 0.002, 0.0002, 0.0002])


@pytest.mark.parametrize("name", ["scanmix", "dividemix"])
def test_both_drops_reach_the_optimizer(
    name: str, methods: Callable[..., dict[str, Method]], data: TrainingData, network: Network
) -> None:
    method: Any = methods(5)[name]
    method = replace(method, lr_drop=2, lr_second_drop=4)
    state = method.start(data, network, Engine())
    rates = [method.epoch(state, data, epoch).get("rate/learn") for epoch in range(5)]
    assert rates == [None, *map(pytest.approx, (0.05, 0.005, 0.005, 0.0005))]


@pytest.mark.parametrize("reg_covar", [5e-4, 1e-3, 5e-2])
def test_reg_covar_is_that_of_the_mixture(reg_covar: float) -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.cat([torch.rand(60, generator=generator) * 0.5, 1 + torch.rand(40, generator=generator)])
    points = normalize_losses(losses.double()).view(-1, 1).numpy()
    slow = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=reg_covar, random_state=0).fit(points)
    low, high = np.sort(slow.means_.ravel())
    wanted = slow.predict_proba(points.clip(low, high))[:, slow.means_.argmin()]
    found = clean_probabilities(losses.unsqueeze(0), None, reg_covar)
    assert torch.allclose(found[0].double(), torch.from_numpy(wanted), atol=1e-6)
    of_class = clean_probabilities(losses.unsqueeze(0), torch.zeros(100, dtype=torch.int64), reg_covar)
    assert torch.equal(of_class, found)


@pytest.mark.parametrize("name", ["scanmix", "dividemix"])
def test_methods_hand_their_reg_covar_on(
    name: str, methods: Callable[..., dict[str, Method]], data: TrainingData, network: Network
) -> None:
    method: Any = methods(2)[name]
    states = [run(replace(method, reg_covar=value), data, network) for value in (5e-4, 0.5)]
    assert not torch.equal(states[0].p_clean, states[1].p_clean)
