"""C2D, contrast to divide (Zheltonozhskii et al., WACV 2022): DivideMix from SimCLR's features. Legend: P = 2 peers."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, About
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.contract import largest_pretraining_batch, pretraining_passes, sum_of_peers
from scanmix.methods.dividemix import DivideMix, DivideMixState, inner_epochs, inner_threshold
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Stages
from scanmix.networks.peer import Heads
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, load_into, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class C2D:
    """SimCLR, a warm-up of five epochs on all labels, then DivideMix as it is."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    about: ClassVar[About] = About(
        "DivideMix that starts from SimCLR's features, without clusters",
        "It shows what pre-training alone adds: `scan_dividemix` adds SCAN to it, `scanmix` the clustering loss. The\n"
        "settings of DivideMix stand under `dividemix.`.",
        "Zheltonozhskii et al., WACV 2022", "those that look right; the rest as unlabeled", networks=2, rows=4,
        cost_in_words="pre-training, then 3 to 13", oracle=DivideMix.about.oracle, group="contrastive", measured=True,
    )  # fmt: skip
    epochs = property(inner_epochs)
    clean_threshold = property(inner_threshold)
    predictor = sum_of_peers

    pretrain: Pretraining = SimCLR()  # features
    dividemix: DivideMix = DivideMix(epochs=360, warmup="5 epochs")  # all further settings

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DivideMixState:
        """Run SimCLR, or take it from the cache; both peers start from its features, each with its own head."""
        found = pretrain(self.pretrain, Clustering(epochs=0), 1, True, data, network, engine)
        state = self.dividemix.start(data, network, engine)
        load_into(state.peers, found)
        return state

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Run DivideMix's epoch."""
        return self.dividemix.epoch(state, data, epoch)

    def passes(self, count: int, clean: float) -> Stages:
        """Count SimCLR, then DivideMix."""
        return pretraining_passes(self.pretrain, None, count) | self.dividemix.passes(count, clean)

    def largest_batch(self, count: int) -> int:
        """Return the larger of the batches of SimCLR and DivideMix."""
        return max(largest_pretraining_batch(self.pretrain, None, count), self.dividemix.largest_batch(count))
