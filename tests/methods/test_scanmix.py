"""ScanMix against Algorithm 1: who learns from whom, in which order, and what is decided when."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import scanmix.methods.scanmix as module
from scanmix.blocks.divide import clean_probability, normalize_losses
from scanmix.blocks.losses import semi_supervised_loss
from scanmix.blocks.neighbors import agreeing, draw_neighbor
from scanmix.data.batches import TrainingData
from scanmix.data.views.sampling import View
from scanmix.distributed.engine import Engine
from scanmix.methods.scanmix import ScanMix, ScanMixState
from scanmix.methods.steps.mixmatch import Mixed, mixmatch
from scanmix.networks.inference import PerSample, predict_all
from scanmix.networks.peer import Peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.stages import current_neighbors

COUNT = 64
Beliefs = Callable[[int], tuple[PerSample, PerSample]]


def split(low: Tensor, seed: int) -> Tensor:
    """Losses around 0.2 where `low`, around 3 elsewhere, all different."""
    jitter = 0.1 * torch.rand(COUNT, generator=torch.Generator().manual_seed(seed))
    return torch.where(low, 0.2 + jitter, 3.0 + jitter)


def made_beliefs(low_a: Tensor, low_b: Tensor) -> tuple[PerSample, PerSample]:
    numbers = torch.arange(COUNT)
    return PerSample(split(low_a, 1), numbers % 4), PerSample(split(low_b, 2), numbers // 16)


MILD = made_beliefs(torch.arange(COUNT) < 40, torch.arange(COUNT) % 8 < 5)
SEVERE = made_beliefs(torch.arange(COUNT) < 16, torch.arange(COUNT) % 8 < 2)


class Learned(NamedTuple):
    """One call of MixMatch, images told apart by their pixels."""

    side: int
    labeled: list[int]
    unlabeled: list[int]
    labels: Tensor
    p_clean: Tensor


class Recorder:
    """Everything an epoch does, in order, seen at the blocks it is made of."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, float]] = []
        self.stage = ""
        self.learned: list[Learned] = []
        self.allowed: list[Tensor] = []
        self.partners: list[Tensor] = []
        self.views: dict[str, int] = {"weak": 0, "strong": 0}
        self.cluster_images: list[list[int]] = []
        self.weights: list[float] = []

    def order(self) -> list[tuple[str, int, float]]:
        """The steps without repetitions."""
        return [step for i, step in enumerate(self.steps) if i == 0 or step != self.steps[i - 1]]


def numbered(data: TrainingData) -> TrainingData:
    """Image i is i everywhere, so that it can be told after any view that does not move pixels."""
    pixels = torch.arange(COUNT, dtype=torch.uint8).view(-1, 1, 1, 1).expand(COUNT, 1, 8, 8).clone()
    return replace(data, images=pixels)


@pytest.fixture
def numbers(data: TrainingData) -> TrainingData:
    return numbered(data)


@pytest.fixture
def started(
    scanmix: ScanMix, numbers: TrainingData, network: PreActResNetSettings
) -> tuple[ScanMixState, TrainingData]:
    state = scanmix.start(numbers, network, Engine())
    # Candidates of the recording tests: five others, known, with themselves first.
    offsets = torch.tensor([0, 1, 3, 4, 16, 17])
    state.candidates = (torch.arange(COUNT).unsqueeze(1) + offsets) % COUNT
    return state, numbers


@pytest.fixture
def recorder(started: tuple[ScanMixState, TrainingData], monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    state, data = started
    seen = Recorder()
    step = Peer.step

    def indices(images: Tensor) -> list[int]:
        return [round(float(value)) for value in (images[:, 0, 0, 0] * 0.2 + 0.4) * 255]

    def recorded_step(peer: Peer, loss: Tensor, rate: float) -> None:
        seen.steps.append((seen.stage, state.peers.index(peer), rate))
        step(peer, loss, rate)

    def recorded_mixmatch(
        peer: Peer, other: Peer, labeled: list[Tensor], unlabeled: list[Tensor], labels: Tensor,
        p_clean: Tensor, *rest: Any, **named: Any,
    ) -> Mixed:  # fmt: skip
        seen.stage = "learn"
        side = state.peers.index(peer)
        assert other is state.peers[1 - side]
        assert len(labeled) == len(unlabeled) == 2
        assert indices(labeled[0]) == indices(labeled[1]) and indices(unlabeled[0]) == indices(unlabeled[1])
        seen.learned.append(Learned(side, indices(labeled[0]), indices(unlabeled[0]), labels, p_clean))
        return mixmatch(peer, other, labeled, unlabeled, labels, p_clean, *rest, **named)

    def recorded_draw(candidates: Tensor, allowed: Tensor, generator: Generator) -> Tensor:
        seen.stage = "cluster"
        assert candidates is state.candidates
        seen.allowed.append(allowed)
        seen.partners.append(draw_neighbor(candidates, allowed, generator))
        return seen.partners[-1]

    def view(name: str) -> View:
        def recorded(images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
            seen.views[name] += 1
            plain = data.views.eval_view(images)
            if seen.stage == "cluster":
                seen.cluster_images += map(indices, plain.split(list(parts or [len(images)])))
            return plain

        return recorded

    def recorded_loss(logits: Tensor, targets: Tensor, num: int, weight: float, prior: float) -> Any:
        seen.weights.append(weight)
        return semi_supervised_loss(logits, targets, num, weight, prior)

    monkeypatch.setattr(Peer, "step", recorded_step)
    monkeypatch.setattr(module, "mixmatch", recorded_mixmatch)
    monkeypatch.setattr(module, "draw_neighbor", recorded_draw)
    monkeypatch.setattr(module, "semi_supervised_loss", recorded_loss)
    monkeypatch.setattr(data.views, "weak", view("weak"))
    monkeypatch.setattr(data.views, "strong", view("strong"))
    yield seen


def believe(monkeypatch: pytest.MonkeyPatch, state: ScanMixState, beliefs: tuple[PerSample, PerSample]) -> None:
    monkeypatch.setattr(module, "per_sample_losses", lambda peer, data: beliefs[state.peers.index(peer)])


def clean_of(belief: PerSample) -> set[int]:
    return {i for i, p in enumerate(clean_probability(belief.losses).tolist()) if p > 0.5}


def test_each_peer_learns_from_what_the_other_calls_clean(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, data = started
    believe(monkeypatch, state, MILD)
    scanmix.epoch(state, data, 1)
    assert state.p_clean is not None
    assert len(clean_of(MILD[0])) == len(clean_of(MILD[1])) == 40 and clean_of(MILD[0]) != clean_of(MILD[1])
    for side in (0, 1):
        other = MILD[1 - side]
        assert torch.equal(state.p_clean[1 - side], clean_probability(normalize_losses(other.losses)))
        mine = [call for call in recorder.learned if call.side == side]
        labeled = [i for call in mine for i in call.labeled]
        assert sorted(labeled) == sorted(clean_of(other)), "one pass over the other's clean set"
        for call in mine:
            assert len(call.labeled) <= 16 and len(call.unlabeled) <= 16
            assert clean_of(other).isdisjoint(call.unlabeled) and call.unlabeled
            assert torch.equal(call.p_clean, state.p_clean[1 - side][call.labeled])
            assert torch.equal(call.labels, F.one_hot(data.labels[call.labeled], 4).float())


def test_each_peer_clusters_by_what_the_other_predicts(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, data = started
    believe(monkeypatch, state, MILD)
    scanmix.epoch(state, data, 1)
    assert len(recorder.allowed) == 2
    by_a, by_b = (agreeing(state.candidates, belief.prediction) for belief in MILD)
    assert not torch.equal(by_a, by_b)
    assert torch.equal(recorder.allowed[0], by_b) and torch.equal(recorder.allowed[1], by_a)
    for side, partner in enumerate(recorder.partners):
        prediction = MILD[1 - side].prediction
        assert torch.equal(prediction[partner], prediction), "itself is a candidate: none goes without"
    pairs = recorder.cluster_images
    assert len(pairs) == 8, "two peers, two batches of 32, anchors and neighbors"
    for side in (0, 1):
        anchors, neighbors = pairs[4 * side : 4 * side + 4 : 2], pairs[4 * side + 1 : 4 * side + 5 : 2]
        assert sorted(anchors[0] + anchors[1]) == list(range(COUNT)), "every example, clean or noisy"
        for batch, found in zip(anchors, neighbors, strict=True):
            assert found == recorder.partners[side][batch].tolist()


@pytest.mark.parametrize("agreement", ["own", "given"])
def test_variants_of_the_neighbor_filter(
    scanmix: ScanMix,
    started: tuple[ScanMixState, TrainingData],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    agreement: Any,
) -> None:
    state, data = started
    believe(monkeypatch, state, MILD)
    replace(scanmix, agreement=agreement).epoch(state, data, 1)
    for side, allowed in enumerate(recorder.allowed):
        label = MILD[side].prediction if agreement == "own" else data.labels
        assert torch.equal(allowed, agreeing(state.candidates, label))


def test_order_of_an_epoch_and_its_learning_rates(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """reference-facts 1.10: MLE a, MLE b, CLU a, CLU b; l_MLE falls tenfold half-way, l_CLU never."""
    state, data = started
    believe(monkeypatch, state, MILD)
    results = scanmix.epoch(state, data, 1)
    assert recorder.order() == [
        ("learn", 0, 0.05), ("learn", 1, 0.05), ("cluster", 0, 1e-3), ("cluster", 1, 1e-3)
    ]  # fmt: skip
    assert (results["rate/learn"], results["rate/cluster"]) == (0.05, 1e-3)
    recorder.steps.clear()
    scanmix.epoch(state, data, 3)  # of 6
    rates = [rate for _, _, rate in recorder.order()]
    assert rates == pytest.approx([0.005, 0.005, 1e-3, 1e-3])


@pytest.mark.parametrize(("first", "then", "severe"), [(SEVERE, MILD, True), (MILD, SEVERE, False)])
def test_severity_is_decided_once_after_warm_up(
    scanmix: ScanMix,
    started: tuple[ScanMixState, TrainingData],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[PerSample, PerSample],
    then: tuple[PerSample, PerSample],
    severe: bool,
) -> None:
    state, data = started
    assert state.severe is None
    scanmix.epoch(state, data, 0)
    assert state.severe is None and state.p_clean is None, "warm-up does not decide"
    recorder.views.update(weak=0, strong=0)
    recorder.steps.clear()
    for epoch, beliefs in enumerate((first, then, then), start=1):
        believe(monkeypatch, state, beliefs)
        scanmix.epoch(state, data, epoch)
        assert state.severe is severe
    used, unused = ("strong", "weak") if severe else ("weak", "strong")
    assert recorder.views[used] > 0 and recorder.views[unused] == 0
    rates = {rate for stage, _, rate in recorder.steps if stage == "cluster"}
    assert rates == {1e-2 if severe else 1e-3}


def test_losses_are_averaged_over_epochs_only_under_severe_noise(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, data = started
    for epoch, beliefs in enumerate((SEVERE, MILD, MILD), start=1):
        believe(monkeypatch, state, beliefs)
        scanmix.epoch(state, data, epoch)
        assert len(state.history) == min(epoch, 2)
        if epoch == 2:
            mean = (normalize_losses(SEVERE[0].losses) + normalize_losses(MILD[0].losses)) / 2
            assert state.p_clean is not None
            assert torch.allclose(state.p_clean[0], clean_probability(mean), atol=1e-5)
    assert state.p_clean is not None
    state.severe = False
    believe(monkeypatch, state, SEVERE)
    scanmix.epoch(state, data, 4)
    alone = clean_probability(normalize_losses(SEVERE[0].losses))
    assert torch.allclose(state.p_clean[0], alone, atol=1e-5)


def test_the_weight_of_the_unlabeled_loss_grows_by_the_step(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lambda_u (e + s / S - warm-up) / ramp with lambda_u = 5, ramp 4, S = 3 steps of 40 clean examples."""
    state, data = started
    believe(monkeypatch, state, MILD)
    for epoch in (1, 3):
        recorder.weights.clear()
        scanmix.epoch(state, data, epoch)
        one = [5 * (epoch - 1 + step / 3) / 4 for step in range(3)]
        assert recorder.weights == pytest.approx([*one, *one])
    recorder.weights.clear()
    scanmix.epoch(state, data, 5)
    assert recorder.weights == [5.0] * 6


NEARLY_NOTHING = made_beliefs(torch.arange(COUNT) == 7, torch.arange(COUNT) == 9)
EQUAL = (PerSample(torch.ones(COUNT), torch.arange(COUNT) % 4), PerSample(torch.ones(COUNT), torch.arange(COUNT) % 4))


@pytest.mark.parametrize(("beliefs", "clean"), [(EQUAL, 64), (NEARLY_NOTHING, 1)])
@pytest.mark.parametrize("minimum_steps", [0, 6])
def test_an_empty_noisy_side_and_a_single_clean_example_are_learned_from(
    scanmix: ScanMix,
    started: tuple[ScanMixState, TrainingData],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    beliefs: tuple[PerSample, PerSample],
    clean: int,
    minimum_steps: int,
) -> None:
    state, data = started
    believe(monkeypatch, state, beliefs)
    results = replace(scanmix, minimum_steps=minimum_steps).epoch(state, data, 1)
    mine = [call for call in recorder.learned if call.side == 0]
    assert len({i for call in mine for i in call.labeled}) == clean
    assert len(mine) >= minimum_steps
    assert all(torch.tensor(value).isfinite() for value in results.values())
    if clean == 64:
        assert results["learn/unlabeled"] == 0.0 and not any(call.unlabeled for call in mine)


@pytest.mark.parametrize("share_momentum", [True, False])
def test_momentum_goes_from_task_to_task_unless_told(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], monkeypatch: pytest.MonkeyPatch, share_momentum: bool
) -> None:
    """A task is all steps of one rate; three differ here: WarmUp, l_MLE, l_CLU, and l_MLE of the next epoch."""
    state, data = started
    step, rates, carried = Peer.step, [0.0, 0.0], list[bool]()

    def recorded(peer: Peer, loss: Tensor, rate: float) -> None:
        side = state.peers.index(peer)
        if rate != rates[side]:
            carried.append(bool(peer.optimizer.state))
        rates[side] = rate
        step(peer, loss, rate)

    monkeypatch.setattr(Peer, "step", recorded)
    changed = replace(scanmix, warmup_rate=0.3, share_momentum=share_momentum)
    for epoch in range(3):
        changed.epoch(state, data, epoch)
    assert carried == [False, False] + [share_momentum] * 8


def test_warm_up_has_a_learning_rate_of_its_own(
    scanmix: ScanMix, started: tuple[ScanMixState, TrainingData], recorder: Recorder
) -> None:
    state, data = started
    results = replace(scanmix, warmup_rate=0.3).epoch(state, data, 0)
    assert recorder.order() == [("", 0, 0.3), ("", 1, 0.3)] and results["rate/warmup"] == 0.3


def test_neighbors_are_searched_anew_every_so_many_epochs(
    scanmix: ScanMix, data: TrainingData, network: PreActResNetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After warm-up, and then every second epoch; by what both encoders say, with the example itself first."""
    method = replace(scanmix, neighbor_refresh=2)
    state = method.start(data, network, Engine())
    searched, original = list[int](), current_neighbors

    def recorded(peers: list[Peer], *more: Any) -> Tensor:
        searched.append(epoch)
        unit = [F.normalize(predict_all(peer.encoder, data), dim=1) for peer in peers]
        cosine = unit[0] @ unit[0].T + unit[1] @ unit[1].T
        found = original(peers, *more)
        assert torch.equal(found[:, 0].long(), torch.arange(COUNT))
        slow = cosine.fill_diagonal_(-9).topk(5, 1)
        assert torch.allclose(cosine.gather(1, found[:, 1:].long()), slow.values, atol=1e-5)
        return found

    monkeypatch.setattr(module, "current_neighbors", recorded)
    begun = state.candidates.clone()
    for epoch in range(6):
        method.epoch(state, data, epoch)
        if epoch == 0:
            assert torch.equal(state.candidates, begun)
    assert searched == [1, 3, 5]
    assert not torch.equal(state.candidates, begun)
