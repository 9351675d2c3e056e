"""C2D, contrast to divide (Zheltonozhskii et al., WACV 2022): DivideMix from SimCLR's features. Legend: P = 2 peers."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, About
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.dividemix import DivideMix, DivideMixState
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, load_into, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class C2D:
    """SimCLR, a warm-up of five epochs on all labels, then DivideMix as it is."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    self_supervised: ClassVar[bool] = False
    about: ClassVar[About] = About(
        "DivideMix that starts from SimCLR's features, without clusters",
        "What pre-training alone is worth: `scan_dividemix` adds SCAN to it, `scanmix` the clustering loss. The\n"
        "settings of DivideMix stand under `dividemix.`.",
        "Zheltonozhskii et al., WACV 2022", "the believed ones; the rest as unlabeled", nets=2, rows=4,
        passes="pre-training, then 3 to 13", oracle=DivideMix.about.oracle,
    )  # fmt: skip

    pretrain: Pretraining = SimCLR()  # features
    dividemix: DivideMix = DivideMix(epochs=360, warmup="5 epochs")  # all the rest

    @property
    def epochs(self) -> int:
        """E of DivideMix."""
        return self.dividemix.epochs

    @property
    def clean_threshold(self) -> float:
        """Return tau of DivideMix."""
        return self.dividemix.clean_threshold

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DivideMixState:
        """Run or recall SimCLR; both peers begin from its features, each with a head of its own."""
        found = pretrain(self.pretrain, Clustering(epochs=0), 1, True, data, network, engine)
        state = self.dividemix.start(data, network, engine)
        load_into(state.peers, found)
        return state

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """DivideMix's epoch."""
        return self.dividemix.epoch(state, data, epoch)

    def predictor(self, state: DivideMixState) -> Predictor:
        """Sum of the peers' logits."""
        return self.dividemix.predictor(state)
