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
from speed.made import LARGE, SMALL, Workload, made_data
from speed.one_by_one import single_views
from speed.pil_views import to_pixels
from speed.plain_network import PlainPreActResNet
from speed.reference_loop import Net, ReferenceData
from speed.rows import Row
from speed.timing import Candidate, Timing, interleave

REPEATS = {LARGE.name: 2, SMALL.name: 3}
WORKERS = (0, 2)
"""Worker processes that the reference loop tries; the number that is quicker for ScanMix's epoch serves the rest."""

ViewName = Literal["weak", "strong"]


@dataclass(frozen=True)
class Case:
    """One kind of epoch: what scanmix does, in a way or two, and what the reference loop does with the same data."""

    ours: dict[str, Candidate]
    theirs: Callable[[ReferenceData], Candidate]


@dataclass(frozen=True, eq=False)
class Setup:
    """What scanmix and the reference loop both start from."""

    workload: Workload
    engine: Engine
    data: TrainingData
    plain: ReferenceData
    state: ScanMixState


def rows(bar: Bar) -> list[Row]:
    """Time every kind of epoch with both networks."""
    return [row for workload in (SMALL, LARGE) for row in compare(workload, REPEATS[workload.name], bar)]


def compare(workload: Workload, repeats: int, bar: Bar) -> list[Row]:
    """Time every kind of epoch with one network, `repeats` times (two at least) in turns with the reference loop."""
    setup = prepare(workload)
    kinds = list(cases(setup))
    steps_in_all = len(WORKERS) - 1 + repeats * sum(len(case.ours) + 1 for case in kinds)
    found: list[Row] = []
    plain = {f"reference loop, {n} worker processes": dataclasses.replace(setup.plain, workers=n) for n in WORKERS}
    with progress(workload.name, steps_in_all, bar) as steps:
        for case in kinds:
            tried = {name: case.theirs(data) for name, data in plain.items()}
            better, times = compared(case.ours, tried, repeats, steps)
            note = f"{workload.count:,} images"
            found += [Row(f"{name}: {workload.name}", times[name], better, times[better], note) for name in case.ours]
            plain = {better: plain[better]}
    return found


def compared(
    ours: Mapping[str, Candidate], tried: Mapping[str, Candidate], repeats: int, steps: Bar
) -> tuple[str, dict[str, Timing]]:
    """Time scanmix beside the ways that were tried of the reference loop.

    All take one turn; then only the quickest way of the reference loop goes on. Return its name, and the times of all
    that went on.
    """
    first = interleave({**ours, **tried}, 1, steps)
    better = min(tried, key=lambda name: first[name].best)
    rest = interleave({**ours, better: tried[better]}, repeats - 1, steps)
    return better, {name: first[name] + seconds for name, seconds in rest.items()}


def prepare(workload: Workload) -> Setup:
    """Make images, networks and neighbors; none of it is timed."""
    engine = Engine(seed=0)
    data = made_data(workload, engine)
    assert isinstance(data.views, Views)
    views, _ = single_views(data.views, workload.shape[2])
    plain = ReferenceData(to_pixels(data.images[:]), data.labels, data.num_classes, views)
    state = scanmix("strong").start(data, workload.network, engine)
    return Setup(workload, engine, data, plain, state)


def scanmix(view: ViewName, **changed: Any) -> ScanMix:
    """Return the published ScanMix without its self-supervised stages and without warm-up."""
    return ScanMix(
        epochs=1, warmup=0, pretrain=SimCLR(epochs=0), clustering=Clustering(epochs=0), view=view, severe_view=view,
        **changed,
    )  # fmt: skip


def cases(setup: Setup) -> Iterator[Case]:
    """Return every kind of epoch."""
    yield scanmix_case(setup)
    yield dividemix_case(setup)
    yield warm_up_case(setup)
    yield head_warm_up_case(setup)
    yield scan_case(setup)
    yield simclr_case(setup)


def scanmix_case(setup: Setup) -> Case:
    """As published, and with the second peer averaged; the reference always trains both peers."""
    published, averaged = scanmix("strong"), scanmix("strong", second_peer="average")
    start = dataclasses.replace(setup.state, severe=True)

    def theirs(data: ReferenceData) -> Candidate:
        return fresh(setup, lambda nets: reference.scanmix_epoch(nets, data, start.candidates, published))

    return Case(
        {
            "ScanMix epoch, strong views": ours(start, published, setup.data),
            "ScanMix epoch, strong views, second peer averaged": ours(start, averaged, setup.data),
        },
        theirs,
    )


def dividemix_case(setup: Setup) -> Case:
    """An epoch after warm-up."""
    method = DivideMix(epochs=1, warmup=0)
    start = DivideMix.State(setup.state.peers, setup.state.history)

    def theirs(data: ReferenceData) -> Candidate:
        return fresh(setup, lambda nets: reference.dividemix_epoch(nets, data, method))

    return Case({"DivideMix epoch": ours(start, method, setup.data)}, theirs)


def warm_up_case(setup: Setup) -> Case:
    """Warm-up of the whole network, as in DivideMix."""
    method = DivideMix(epochs=1, warmup=1)
    start = DivideMix.State(setup.state.peers, setup.state.history)
    size, rate = 2 * method.batch_size, method.warmup_rate

    def theirs(data: ReferenceData) -> Candidate:
        return fresh(setup, lambda nets: reference.warm_up_epoch(nets, data, size, rate))

    return Case({"warm-up epoch, whole network, weak views": ours(start, method, setup.data)}, theirs)


def head_warm_up_case(setup: Setup) -> Case:
    """Warm-up of the classifier on features without gradients, as in ScanMix."""
    method = dataclasses.replace(scanmix("strong"), warmup=1)
    size, rate = 2 * method.batch_size, method.warmup_rate

    def theirs(data: ReferenceData) -> Candidate:
        return fresh(setup, lambda nets: reference.head_warm_up_epoch(nets, data, size, rate))

    return Case({"warm-up epoch, head alone, strong views": ours(setup.state, method, setup.data)}, theirs)


def scan_case(setup: Setup) -> Case:
    """One epoch of clustering."""
    settings, candidates = Clustering(epochs=1), setup.state.candidates

    def begin() -> Callable[[], object]:
        peer = copy.deepcopy(setup.state.peers[0])
        return lambda: cluster(settings, peer, candidates, setup.data, setup.engine, None)

    def theirs(data: ReferenceData) -> Candidate:
        size, rate = settings.batch_size, settings.learning_rate
        return fresh(setup, lambda nets: reference.scan_epoch(nets[0], data, candidates, size, rate))

    return Case({"SCAN epoch, strong views": begin}, theirs)


def simclr_case(setup: Setup) -> Case:
    """One epoch of pre-training, and the pass that takes the features of all images."""
    settings = SimCLR(epochs=1, batch_size=min(512, setup.workload.count))

    def begin() -> Callable[[], object]:
        encoder = make_encoder(setup.workload.network, setup.workload.shape[0], setup.engine, "encoder")
        return lambda: simclr(settings, encoder, setup.data, setup.engine, None)

    def theirs(data: ReferenceData) -> Candidate:
        def begin() -> Callable[[], Tensor]:
            ours = make_encoder(setup.workload.network, setup.workload.shape[0], setup.engine, "encoder")
            assert isinstance(ours, PreActResNet)
            encoder = PlainPreActResNet(ours)
            projector = Projector(encoder.num_features, settings.projection_size)
            size, temperature = settings.batch_size, settings.contrast_temperature
            return lambda: reference.simclr_epoch(encoder, projector, data, size, temperature, settings.symmetric)

        return begin

    return Case({"SimCLR epoch and its sweep, contrastive views": begin}, theirs)


def ours(start: Any, method: Any, data: TrainingData) -> Candidate:
    """Return an epoch of scanmix that starts each time from a copy of the same state."""

    def begin() -> Callable[[], object]:
        state = copy.deepcopy(start)
        return lambda: method.epoch(state, data, 0)

    return begin


def fresh(setup: Setup, epoch: Callable[[tuple[Net, Net]], None]) -> Candidate:
    """Return an epoch of the reference loop that starts each time from copies of the same networks."""

    def begin() -> Callable[[], object]:
        first, second = (Net(peer) for peer in setup.state.peers)
        return lambda: epoch((first, second))

    return begin
