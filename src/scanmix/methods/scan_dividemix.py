"""DivideMix from SCAN weights: the control of the paper's Table 6 (ScanMix without its clustering loss).

Legend: B batch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass

from scanmix.blocks.losses import confidence_penalty
from scanmix.config import STRICT
from scanmix.data.batches import TrainingData, batches
from scanmix.engine import Engine, Meter
from scanmix.methods.dividemix import DivideMix, DivideMixState
from scanmix.networks.peer import Peer, Predictor, guessing
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import load_into, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScanDivideMix:
    """SimCLR, SCAN, head-only warm-up, then DivideMix as it is."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    label_free: ClassVar[bool] = False

    pretrain: SimCLR = SimCLR()
    """First stage: features."""
    clustering: Clustering = Clustering()
    """Second stage: clusters of neighbors."""
    num_neighbors: Annotated[int, Field(ge=1)] = 20
    """K of the clustering stage."""
    include_self: bool = True
    """The example counts among its neighbors (published code)."""
    dividemix: DivideMix = DivideMix()
    """All the rest; `dividemix.warmup` trains the head alone."""

    @property
    def epochs(self) -> int:
        """E of DivideMix."""
        return self.dividemix.epochs

    def start(self, data: TrainingData, network: PreActResNetSettings, engine: Engine) -> DivideMixState:
        """Run or recall the label-free stages; both peers begin from them."""
        found = pretrain(
            self.pretrain,
            self.clustering,
            self.num_neighbors,
            include_self=self.include_self,
            data=data,
            network=network,
            engine=engine,
        )
        state = self.dividemix.start(data, network, engine)
        for peer in state.peers:
            load_into(peer, found)
        return state

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm the heads up, then DivideMix's epoch."""
        if epoch >= self.dividemix.warmup_epochs(data):
            return self.dividemix.epoch(state, data, epoch)
        meter = Meter()
        with meter.timed("warmup"):
            for peer in state.peers:
                self._warm_up(peer, state, data, epoch, meter)
        return meter.results() | {"rate/warmup": self.dividemix.learning_rate}

    def predictor(self, state: DivideMixState) -> Predictor:
        """Sum of the peers' logits."""
        return self.dividemix.predictor(state)

    def _warm_up(
        self, peer: Peer, state: DivideMixState, data: TrainingData, epoch: int, meter: Meter
    ) -> None:
        """Cross-entropy of the head alone on features that no label has touched, as ScanMix's code does."""
        settings = self.dividemix
        side = state.peers.index(peer)
        everything = torch.arange(len(data), device=data.labels.device)
        order, draws = (data.generator("warmup", epoch, f"{use} {side}") for use in ("order", "views"))
        for index in batches(everything, 2 * settings.batch_size, order):
            with guessing(peer.encoder, batch_statistics=True):
                features = peer.encoder(data.views.strong(data.images[index], draws))
            logits = peer.classifier(features)
            loss = F.cross_entropy(logits, data.labels[index])
            loss = loss + settings.confidence_weight * confidence_penalty(logits)
            meter.add("warmup", loss=loss)
            peer.step(loss, settings.learning_rate)
