"""DivideMix from SCAN weights: the baseline of the paper's Table 6 (ScanMix without its clustering loss)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from scanmix.config import STRICT, About, Count
from scanmix.data.batches import TrainingData, labeled_views
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import largest_pretraining_batch, pretraining_passes, sum_of_peers
from scanmix.methods.dividemix import DivideMix, DivideMixState, inner_epochs, inner_threshold
from scanmix.methods.steps.division import divided_passes
from scanmix.methods.steps.warmup import warm_up
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, training_turns
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, load_into, pretrain


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScanDivideMix:
    """SimCLR, SCAN, head-only warm-up, then DivideMix as it is."""

    State: ClassVar[type[DivideMixState]] = DivideMixState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    about: ClassVar[About] = About(
        "DivideMix that starts from SCAN's weights",
        "DivideMix after SCAN, with a warm-up of the classifier alone. It is ScanMix without its clustering\n"
        "loss: the baseline that shows what that loss adds. The settings of DivideMix stand under\n"
        "`dividemix.`.",
        "Sachdeva et al., Pattern Recognition 2023, Table 6", "those that look right; the rest as unlabeled",
        networks=2, rows=4, cost_in_words="pre-training, then 3 to 13", oracle=DivideMix.about.oracle,
        group="scanmix", measured=True,
    )  # fmt: skip
    epochs = property(inner_epochs)
    clean_threshold = property(inner_threshold)
    predictor = sum_of_peers

    pretrain: Pretraining = SimCLR()  # first stage: features
    clustering: Clustering = Clustering()  # second stage: clusters of neighbors
    name_clusters: bool = False  # count which cluster is which class before WarmUp (ours, for small data)
    num_neighbors: Count = 20  # K of the clustering stage
    warmup_view: Literal["weak", "strong"] = "strong"  # of the images in warm-up (code for CIFAR; weak on web data)
    include_self: bool = True  # the example counts among its neighbors (published code)
    dividemix: DivideMix = DivideMix()  # all further settings; `dividemix.warmup` trains the head alone

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DivideMixState:
        """Run the self-supervised stages, or take them from the cache; both peers start from them."""
        found = pretrain(self.pretrain, self.clustering, self.num_neighbors, self.include_self, data, network, engine)
        state = self.dividemix.start(data, network, engine)
        load_into(state.peers, found, named_by=data if self.name_clusters else None)
        return state

    def epoch(self, state: DivideMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm up the heads, or run DivideMix's epoch."""
        if epoch >= self.dividemix.epochs_in(self.dividemix.warmup, len(data)):
            return self.dividemix.epoch(state, data, epoch)
        meter = Meter()
        with meter.timed("warmup"):
            for side in training_turns(state.peers):
                self._warm_up(side, state, data, epoch, meter)
        return meter.results() | {"rate/warmup": self.dividemix.warmup_rate}

    def passes(self, count: int, clean: float) -> Stages:
        """Count the self-supervised stages, a warm-up of the heads on forward passes, then DivideMix's other epochs."""
        inner = self.dividemix
        warmup = min(inner.epochs, inner.epochs_in(inner.warmup, count))
        naming = Passes(forward_only=2 * count if self.name_clusters else 0)
        heads = (Passes(forward_only=2 * count) + Passes(**{self.warmup_view: 2 * count})) * warmup
        turn = divided_passes(count, clean, inner.batch_size, inner.minimum_steps, "weak", 2)
        training = naming + heads + turn * (inner.epochs - warmup)
        return pretraining_passes(self.pretrain, self.clustering, count) | {"training": training}

    def largest_batch(self, count: int) -> int:
        """Return the largest of the batches of the self-supervised stages and of DivideMix."""
        first = largest_pretraining_batch(self.pretrain, self.clustering, count)
        return max(first, self.dividemix.largest_batch(count))

    def _warm_up(self, side: int, state: DivideMixState, data: TrainingData, epoch: int, meter: Meter) -> None:
        """Train the head alone, on features that were learned without labels, as ScanMix's code does."""
        settings, peer, stage = self.dividemix, state.peers[side], f"warmup {side}"
        view, size = data.views.random_view(self.warmup_view), 2 * settings.batch_size
        steps = labeled_views(data, view, data.labels, size, stage, epoch, peer.shard)
        warm_up(peer, "head", steps, settings.warmup_rate, settings.confidence_weight, meter)
