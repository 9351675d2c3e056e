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
from benchmarks.pil_views import like, to_pixels
from benchmarks.reference_loop import Net, ReferenceData
from benchmarks.rows import Row
from benchmarks.timing import Contestant, interleave, timed
from scanmix.data.batches import TrainingData
from scanmix.data.views import Views
from scanmix.engine import Engine
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.scanmix import ScanMix, ScanMixState
from scanmix.networks.peer import make_encoder
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
    """Time every kind of epoch with one network, in turns with the reference loop."""
    ground = prepare(case)
    measured, kinds = [], list(pairs(ground))
    with progress(case.name, len(kinds) * (1 + 2 * repeats), bar) as steps:
        for pair in kinds:
            steps.advance(0, note=pair.name)
            theirs, workers = better(pair, ground.plain)
            steps.advance()
            times = interleave({"scanmix": pair.ours, "reference": theirs}, repeats, steps)
            note = f"{case.count:,} images; {workers} worker processes"
            name = f"{pair.name}: {case.name}"
            measured.append(Row(name, times["scanmix"], "reference loop", times["reference"], note))
    return measured


def better(pair: Pair, plain: ReferenceData) -> tuple[Contestant, int]:
    """Return the reference with the number of worker processes that is quicker here."""
    tried = [(workers, pair.theirs(dataclasses.replace(plain, workers=workers))) for workers in WORKERS]
    spent = [timed(contestant)[0] for _, contestant in tried]
    workers, contestant = tried[spent.index(min(spent))]
    return contestant, workers


def prepare(case: Case) -> Ground:
    """Make images, networks and neighbors, untimed."""
    engine = Engine(seed=0)
    data = made_data(case, engine)
    assert isinstance(data.views, Views)
    plain = ReferenceData(to_pixels(data.images), data.labels, data.num_classes, like(data.views, case.shape[2]))
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
    yield dividemix_pair(ground)
    yield warm_up_pair(ground)
    yield head_warm_up_pair(ground)
    yield scan_pair(ground)
    yield simclr_pair(ground)


def scanmix_pair(ground: Ground, view: ViewName) -> Pair:
    method = scanmix(view)
    severe = view == "strong"
    start = dataclasses.replace(ground.state, severe=severe)

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.scanmix_epoch(nets, data, start.candidates, method, severe))

    return Pair(f"ScanMix epoch, {view} views", ours(start, method, ground.data), theirs)


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
            encoder = make_encoder(ground.case.network, ground.case.shape[0], ground.engine, "encoder")
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
