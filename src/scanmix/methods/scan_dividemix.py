"""DivideMix from SCAN weights: the control of the paper's Table 6 (ScanMix without its clustering loss)."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, About, Count
from scanmix.data.batches import TrainingData, labeled_views
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.dividemix import DivideMix, DivideMixState
from scanmix.methods.steps.warmup import warm_up
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor
from scanmix.networks.peer import training_turns
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, load_into, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScanDivideMix:
    """SimCLR, SCAN, head-only warm-up, then DivideMix as it is."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    self_supervised: ClassVar[bool] = False
    about: ClassVar[About] = About(
        "DivideMix that starts from SCAN's weights",
        "DivideMix after SCAN, with a warm-up of the classifier alone. It is ScanMix without its clustering\n"
        "loss: the control that says whether that loss earns its cost. The settings of DivideMix stand under\n"
        "`dividemix.`.",
        "Sachdeva et al., Pattern Recognition 2023, Table 6", "the believed ones; the rest as unlabeled",
        nets=2, rows=4, passes="pre-training, then 3 to 13", oracle=DivideMix.about.oracle,
    )  # fmt: skip

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
        load_into(state.peers, found, named_by=data if self.name_clusters else None)
        return state

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm the heads up, then DivideMix's epoch."""
        if epoch >= self.dividemix.epochs_in(self.dividemix.warmup, data):
            return self.dividemix.epoch(state, data, epoch)
        meter = Meter()
        with meter.timed("warmup"):
            for side in training_turns(state.peers):
                self._warm_up(side, state, data, epoch, meter)
        return meter.results() | {"rate/warmup": self.dividemix.warmup_rate}

    def predictor(self, state: DivideMixState) -> Predictor:
        """Sum of the peers' logits."""
        return self.dividemix.predictor(state)

    def _warm_up(self, side: int, state: DivideMixState, data: TrainingData, epoch: int, meter: Meter) -> None:
        """Cross-entropy of the head alone on features that no label has touched, as ScanMix's code does."""
        settings, peer, stage = self.dividemix, state.peers[side], f"warmup {side}"
        seen = labeled_views(data, data.views.strong, data.labels, 2 * settings.batch_size, stage, epoch, peer.shard)
        warm_up(peer, "head", seen, settings.warmup_rate, settings.confidence_weight, meter)
