"""DivideMix from SCAN weights: the control of the paper's Table 6 (ScanMix without its clustering loss)."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.blocks.warmup import warm_up
from scanmix.config import STRICT, Count
from scanmix.data.batches import TrainingData, batches
from scanmix.engine import Engine, Meter
from scanmix.methods.dividemix import DivideMix, DivideMixState
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.peer import Predictor, sides
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, load_into, name_clusters, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScanDivideMix:
    """SimCLR, SCAN, head-only warm-up, then DivideMix as it is."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    label_free: ClassVar[bool] = False

    pretrain: Pretraining = SimCLR()  # first stage: features
    clustering: Clustering = Clustering()  # second stage: clusters of neighbors
    name_clusters: bool = False  # count which cluster is which class before WarmUp (ours, for small data)
    num_neighbors: Count = 20  # K of the clustering stage
    include_self: bool = True  # the example counts among its neighbors (published code)
    dividemix: DivideMix = DivideMix()  # all the rest; `dividemix.warmup` trains the head alone

    @property
    def epochs(self) -> int:
        """E of DivideMix."""
        return self.dividemix.epochs

    @property
    def clean_threshold(self) -> float:
        """Return tau of DivideMix."""
        return self.dividemix.clean_threshold

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DivideMixState:
        """Run or recall the label-free stages; both peers begin from them."""
        found = pretrain(self.pretrain, self.clustering, self.num_neighbors, self.include_self, data, network, engine)
        state = self.dividemix.start(data, network, engine)
        for peer in state.peers:
            load_into(peer, found)
            if self.name_clusters:
                name_clusters(peer, data)
        return state

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm the heads up, then DivideMix's epoch."""
        if epoch >= self.dividemix.epochs_in(self.dividemix.warmup, data):
            return self.dividemix.epoch(state, data, epoch)
        meter = Meter()
        with meter.timed("warmup"):
            for side in sides(state.peers):
                self._warm_up(side, state, data, epoch, meter)
        return meter.results() | {"rate/warmup": self.dividemix.warmup_rate}

    def predictor(self, state: DivideMixState) -> Predictor:
        """Sum of the peers' logits."""
        return self.dividemix.predictor(state)

    def _warm_up(self, side: int, state: DivideMixState, data: TrainingData, epoch: int, meter: Meter) -> None:
        """Cross-entropy of the head alone on features that no label has touched, as ScanMix's code does."""
        settings = self.dividemix
        order, draws = data.generators(f"warmup {side}", epoch, "order", "views")
        steps = map(state.peers[side].own, batches(data.everything, 2 * settings.batch_size, order))
        seen = ((data.views.strong(data.images[index], draws), data.labels[index]) for index in steps)
        warm_up(state.peers[side], "head", seen, settings.warmup_rate, settings.confidence_weight, meter)
