"""Whole epochs: scanmix beside the reference loop, from the same weights, on the same number of images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from benchmarks import reference_loop as reference
from benchmarks.made import LARGE, SMALL, Case, made_data
from benchmarks.one_by_one import picture_views
from benchmarks.pil_views import to_pixels
from benchmarks.plain_network import PlainPreActResNet
from benchmarks.reference_loop import Net, ReferenceData
from benchmarks.rows import Row
from benchmarks.timing import Contestant, interleave
from scanmix.data.batches import TrainingData
from scanmix.data.views import Views
from scanmix.engine import Engine
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.scanmix import ScanMix, ScanMixState
from scanmix.networks.peer import make_encoder
from scanmix.networks.preact_resnet import PreActResNet
from scanmix.pretrain.scan import Clustering, cluster
from scanmix.pretrain.simclr import Projector, SimCLR, simclr
from scanmix.progress import Bar, progress

REPEATS = {LARGE.name: 2, SMALL.name: 3}
WORKERS = (0, 2)
"""Worker processes that the reference loop tries; the better stands in the table."""

ViewName = Literal["weak", "strong"]


@dataclass(frozen=True)
class Pair:
    """One kind of epoch: what scanmix does, and what the reference does with so many worker processes."""

    name: str
    ours: Contestant
    theirs: Callable[[ReferenceData], Contestant]


@dataclass(frozen=True, eq=False)
class Ground:
    """What both start from."""

    case: Case
    engine: Engine
    data: TrainingData
    plain: ReferenceData
    state: ScanMixState


def rows(bar: Bar) -> list[Row]:
    """Time every kind of epoch with both networks."""
    return [row for case in (SMALL, LARGE) for row in compare(case, REPEATS[case.name], bar)]


def compare(case: Case, repeats: int, bar: Bar) -> list[Row]:
    """Time every kind of epoch with one network, `repeats` times (two at least) in turns with the reference loop."""
    ground = prepare(case)
    kinds = list(pairs(ground))
    with progress(case.name, len(kinds) * (len(WORKERS) - 1 + 2 * repeats), bar) as steps:
        return [compared(pair, ground, repeats, steps) for pair in kinds]


def compared(pair: Pair, ground: Ground, repeats: int, steps: Bar) -> Row:
    """Time one kind of epoch; the reference goes on with the number of worker processes that was quicker at first."""
    tried = {
        f"reference loop, {workers} worker processes": pair.theirs(dataclasses.replace(ground.plain, workers=workers))
        for workers in WORKERS
    }
    first = interleave({pair.name: pair.ours} | tried, 1, steps)
    better = min(tried, key=lambda name: first[name].best)
    rest = interleave({pair.name: pair.ours, better: tried[better]}, repeats - 1, steps)
    mine, theirs = (first[name] + rest[name] for name in (pair.name, better))
    return Row(f"{pair.name}: {ground.case.name}", mine, better, theirs, f"{ground.case.count:,} images")


def prepare(case: Case) -> Ground:
    """Make images, networks and neighbors, untimed."""
    engine = Engine(seed=0)
    data = made_data(case, engine)
    assert isinstance(data.views, Views)
    views, _ = picture_views(data.views, case.shape[2])
    plain = ReferenceData(to_pixels(data.images[:]), data.labels, data.num_classes, views)
    state = scanmix("strong").start(data, case.network, engine)
    return Ground(case, engine, data, plain, state)


def scanmix(view: ViewName, **changed: Any) -> ScanMix:
    """Return the published ScanMix without its label-free stages, whose first epoch is no warm-up."""
    return ScanMix(
        epochs=1, warmup=0, pretrain=SimCLR(epochs=0), clustering=Clustering(epochs=0), view=view, severe_view=view,
        **changed,
    )  # fmt: skip


def pairs(ground: Ground) -> Iterator[Pair]:
    """Return every kind of epoch."""
    yield scanmix_pair(ground, "strong")
    yield scanmix_pair(ground, "weak")
    yield scanmix_pair(ground, "strong", second_peer="average")
    yield dividemix_pair(ground)
    yield warm_up_pair(ground)
    yield head_warm_up_pair(ground)
    yield scan_pair(ground)
    yield simclr_pair(ground)


def scanmix_pair(ground: Ground, view: ViewName, second_peer: Literal["trained", "average"] = "trained") -> Pair:
    """The reference always trains both peers."""
    method = scanmix(view, second_peer=second_peer)
    severe = view == "strong"
    start = dataclasses.replace(ground.state, severe=severe)

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.scanmix_epoch(nets, data, start.candidates, method, severe))

    fewer = ", second peer averaged" if second_peer == "average" else ""
    return Pair(f"ScanMix epoch, {view} views{fewer}", ours(start, method, ground.data), theirs)


def dividemix_pair(ground: Ground) -> Pair:
    method = DivideMix(epochs=1, warmup=0)
    start = DivideMix.State(ground.state.peers, ground.state.history)

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.dividemix_epoch(nets, data, method))

    return Pair("DivideMix epoch", ours(start, method, ground.data), theirs)


def warm_up_pair(ground: Ground) -> Pair:
    method = DivideMix(epochs=1, warmup=1)
    start = DivideMix.State(ground.state.peers, ground.state.history)
    size, rate = 2 * method.batch_size, method.warmup_rate

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.warm_up_epoch(nets, data, size, rate))

    return Pair("warm-up epoch, whole network, weak views", ours(start, method, ground.data), theirs)


def head_warm_up_pair(ground: Ground) -> Pair:
    method = dataclasses.replace(scanmix("strong"), warmup=1)
    size, rate = 2 * method.batch_size, method.warmup_rate

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.head_warm_up_epoch(nets, data, size, rate))

    return Pair("warm-up epoch, head alone, strong views", ours(ground.state, method, ground.data), theirs)


def scan_pair(ground: Ground) -> Pair:
    settings, candidates = Clustering(epochs=1), ground.state.candidates

    def begin() -> Callable[[], object]:
        peer = copy.deepcopy(ground.state.peers[0])
        return lambda: cluster(settings, peer, candidates, ground.data, ground.engine, None)

    def theirs(data: ReferenceData) -> Contestant:
        size, rate = settings.batch_size, settings.learning_rate
        return fresh(ground, lambda nets: reference.scan_epoch(nets[0], data, candidates, size, rate))

    return Pair("SCAN epoch, strong views", begin, theirs)


def simclr_pair(ground: Ground) -> Pair:
    settings = SimCLR(epochs=1, batch_size=min(512, ground.case.count))

    def begin() -> Callable[[], object]:
        encoder = make_encoder(ground.case.network, ground.case.shape[0], ground.engine, "encoder")
        return lambda: simclr(settings, encoder, ground.data, ground.engine, None)

    def theirs(data: ReferenceData) -> Contestant:
        def begin() -> Callable[[], Tensor]:
            ours = make_encoder(ground.case.network, ground.case.shape[0], ground.engine, "encoder")
            assert isinstance(ours, PreActResNet)
            encoder = PlainPreActResNet(ours)
            projector = Projector(encoder.num_features, settings.projection_size)
            size, temperature = settings.batch_size, settings.contrast_temperature
            return lambda: reference.simclr_epoch(encoder, projector, data, size, temperature, settings.symmetric)

        return begin

    return Pair("SimCLR epoch and its sweep, contrastive views", begin, theirs)


def ours(start: Any, method: Any, data: TrainingData) -> Contestant:
    """An epoch of scanmix, each time from a copy of the same state."""

    def begin() -> Callable[[], object]:
        state = copy.deepcopy(start)
        return lambda: method.epoch(state, data, 0)

    return begin


def fresh(ground: Ground, epoch: Callable[[tuple[Net, Net]], None]) -> Contestant:
    """An epoch of the reference, each time from copies of the same networks."""

    def begin() -> Callable[[], object]:
        first, second = (Net(peer) for peer in ground.state.peers)
        return lambda: epoch((first, second))

    return begin
