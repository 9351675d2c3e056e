"""Whole epochs: scanmix beside the reference loop, from the same weights, on the same number of images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from scanmix.data.batches import TrainingData
from scanmix.data.views import Views
from scanmix.distributed.engine import Engine
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.scanmix import ScanMix, ScanMixState
from scanmix.networks.peer import make_encoder
from scanmix.networks.preact_resnet import PreActResNet
from scanmix.pretrain.scan import Clustering, cluster
from scanmix.pretrain.simclr import Projector, SimCLR, simclr
from scanmix.progress import Bar, progress
from speed import reference_loop as reference
from speed.made import LARGE, SMALL, Case, made_data
from speed.one_by_one import picture_views
from speed.pil_views import to_pixels
from speed.plain_network import PlainPreActResNet
from speed.reference_loop import Net, ReferenceData
from speed.rows import Row
from speed.timing import Contestant, Timing, interleave

REPEATS = {LARGE.name: 2, SMALL.name: 3}
WORKERS = (0, 2)
"""Worker processes that the reference loop tries; what is better for ScanMix's epoch is kept for the others."""

ViewName = Literal["weak", "strong"]


@dataclass(frozen=True)
class Race:
    """One kind of epoch: what scanmix does, in a way or two, and what the reference does with its data."""

    ours: dict[str, Contestant]
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
    kinds = list(races(ground))
    goes = len(WORKERS) - 1 + repeats * sum(len(race.ours) + 1 for race in kinds)
    found: list[Row] = []
    plain = {f"reference loop, {n} worker processes": dataclasses.replace(ground.plain, workers=n) for n in WORKERS}
    with progress(case.name, goes, bar) as steps:
        for race in kinds:
            tried = {name: race.theirs(data) for name, data in plain.items()}
            better, times = compared(race.ours, tried, repeats, steps)
            note = f"{case.count:,} images"
            found += [Row(f"{name}: {case.name}", times[name], better, times[better], note) for name in race.ours]
            plain = {better: plain[better]}
    return found


def compared(
    ours: Mapping[str, Contestant], tried: Mapping[str, Contestant], repeats: int, steps: Bar
) -> tuple[str, dict[str, Timing]]:
    """Time what scanmix does beside what was tried of the reference.

    All take a turn; of the reference, only the quicker goes on. Returns which, and the times of all that went on.
    """
    first = interleave({**ours, **tried}, 1, steps)
    better = min(tried, key=lambda name: first[name].best)
    rest = interleave({**ours, better: tried[better]}, repeats - 1, steps)
    return better, {name: first[name] + seconds for name, seconds in rest.items()}


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


def races(ground: Ground) -> Iterator[Race]:
    """Return every kind of epoch."""
    yield scanmix_race(ground)
    yield dividemix_race(ground)
    yield warm_up_race(ground)
    yield head_warm_up_race(ground)
    yield scan_race(ground)
    yield simclr_race(ground)


def scanmix_race(ground: Ground) -> Race:
    """As published, and with the second peer averaged; the reference always trains both peers."""
    published, averaged = scanmix("strong"), scanmix("strong", second_peer="average")
    start = dataclasses.replace(ground.state, severe=True)

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.scanmix_epoch(nets, data, start.candidates, published))

    return Race(
        {
            "ScanMix epoch, strong views": ours(start, published, ground.data),
            "ScanMix epoch, strong views, second peer averaged": ours(start, averaged, ground.data),
        },
        theirs,
    )


def dividemix_race(ground: Ground) -> Race:
    method = DivideMix(epochs=1, warmup=0)
    start = DivideMix.State(ground.state.peers, ground.state.history)

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.dividemix_epoch(nets, data, method))

    return Race({"DivideMix epoch": ours(start, method, ground.data)}, theirs)


def warm_up_race(ground: Ground) -> Race:
    method = DivideMix(epochs=1, warmup=1)
    start = DivideMix.State(ground.state.peers, ground.state.history)
    size, rate = 2 * method.batch_size, method.warmup_rate

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.warm_up_epoch(nets, data, size, rate))

    return Race({"warm-up epoch, whole network, weak views": ours(start, method, ground.data)}, theirs)


def head_warm_up_race(ground: Ground) -> Race:
    method = dataclasses.replace(scanmix("strong"), warmup=1)
    size, rate = 2 * method.batch_size, method.warmup_rate

    def theirs(data: ReferenceData) -> Contestant:
        return fresh(ground, lambda nets: reference.head_warm_up_epoch(nets, data, size, rate))

    return Race({"warm-up epoch, head alone, strong views": ours(ground.state, method, ground.data)}, theirs)


def scan_race(ground: Ground) -> Race:
    settings, candidates = Clustering(epochs=1), ground.state.candidates

    def begin() -> Callable[[], object]:
        peer = copy.deepcopy(ground.state.peers[0])
        return lambda: cluster(settings, peer, candidates, ground.data, ground.engine, None)

    def theirs(data: ReferenceData) -> Contestant:
        size, rate = settings.batch_size, settings.learning_rate
        return fresh(ground, lambda nets: reference.scan_epoch(nets[0], data, candidates, size, rate))

    return Race({"SCAN epoch, strong views": begin}, theirs)


def simclr_race(ground: Ground) -> Race:
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

    return Race({"SimCLR epoch and its sweep, contrastive views": begin}, theirs)


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
