"""ScanMix (Sachdeva et al., Pattern Recognition 2023), Algorithm 1.

Legend: N examples, B batch, C classes, K neighbors, P = 2 peers. Where paper and published code differ,
`docs/fidelity.md` says which is the default here and which field selects the other.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.divide import clean_probability, divide, noise_rate, normalize_losses
from scanmix.blocks.losses import confidence_penalty, scan_loss, semi_supervised_loss
from scanmix.blocks.memory import remember
from scanmix.blocks.mixmatch import mixmatch
from scanmix.blocks.neighbors import agreeing, draw_neighbor
from scanmix.blocks.schedules import linear_ramp, step_decay
from scanmix.config import STRICT, Duration, epochs_of
from scanmix.data.batches import TrainingData, batches, paired
from scanmix.engine import Engine, Meter
from scanmix.networks.peer import Peer, Predictor, classify, examine, guessing, learning, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import candidate_neighbors, load_into, pretrain

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


@dataclasses.dataclass
class ScanMixState:
    """All that one epoch hands to the next."""

    peers: list[Peer]
    candidates: Tensor
    """N_x: (N, K) neighbors, or (N, K + 1) with the example itself first."""
    history: Tensor
    """(H, P, N) normalized losses of the last epochs."""
    p_clean: Tensor | None = None
    """(P, N)."""
    severe: bool | None = None
    """Whether the noise estimated after warm-up is above `severe_noise`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScanMix:
    """Semantic clustering and semi-supervised learning in turns; hyper-parameters of the paper's CIFAR-10 runs."""

    State: ClassVar[type[ScanMixState]] = ScanMixState
    label_free: ClassVar[bool] = False

    epochs: Count = 300
    """E (section 4.2), warm-up included."""
    warmup: Duration = "10 epochs"
    """WarmUp (30 epochs for CIFAR-100)."""
    pretrain: SimCLR = SimCLR()
    clustering: Clustering = Clustering()
    num_neighbors: Count = 20
    """K (section 4.2)."""
    include_self: bool = True
    """The example counts among its neighbors (published code; not in the paper)."""

    batch_size: Annotated[int, Field(ge=2)] = 64
    """Of each of the two sets; two views of each image make 4B rows a step."""
    minimum_steps: Annotated[int, Field(ge=0)] = 0
    """A pass over a small clean set is repeated until it has so many steps."""
    learning_rate: Rate = 0.02
    lr_drop: Duration = "50%"
    """When the learning rate is divided by ten."""
    momentum: Share = 0.9
    weight_decay: Weight = 5e-4

    clean_threshold: Share = 0.5
    """tau, Eq. 8."""
    minimum_clean: Count = 1
    """The likeliest clean examples that are kept when the threshold leaves fewer."""
    loss_memory: Count = 1
    """Epochs of losses averaged before the mixture under severe noise (5 in the code, there only when told 90 %)."""
    sharpen_temperature: Rate = 0.5
    """T of MixMatch."""
    mixup_alpha: Weight = 4.0
    """alpha of MixUp's Beta."""
    unlabeled_weight: Weight = 25.0
    """lambda_u, section 3.2; DivideMix's Table 7 sets it by the noise it is told."""
    unlabeled_ramp: Weight = 16.0
    """Epochs over which lambda_u grows from 0."""
    prior_weight: Weight = 1.0
    """lambda_r, section 3.2."""
    confidence_weight: Weight = 0.0
    """Confidence penalty in warm-up (1 in the code, there only when told the noise is asymmetric)."""
    guess_statistics: Literal["batch", "running"] = "batch"
    """Batch norm of the trained peer while it guesses."""

    entropy_weight: Weight = 5.0
    """lambda_e, Eq. 9: 5 in every published configuration, 2 in the paper's text."""
    cluster_batch_size: Annotated[int, Field(ge=2)] = 128
    """Section 4.2."""
    cluster_rate: Rate = 1e-5
    """Learning rate of the clustering loss (section 4.2)..."""
    severe_cluster_rate: Rate = 1e-3
    """... and when more than `severe_noise` of the labels look wrong."""
    severe_noise: Share = 0.6
    """|U| / |D| above which noise is severe (section 4.2); severe noise also means strong views (code)."""

    def start(self, data: TrainingData, network: PreActResNetSettings, engine: Engine) -> ScanMixState:
        """PreTrain(D): features, neighbors N_x and clusters without labels; both peers begin from them."""
        found = pretrain(
            self.pretrain, self.clustering, self.num_neighbors, include_self=self.include_self, data=data,
            network=network, engine=engine,
        )  # fmt: skip
        peers = [
            make_peer(network, data, engine, name, momentum=self.momentum, weight_decay=self.weight_decay)
            for name in ("first", "second")
        ]
        candidates = candidate_neighbors(found.neighbors, include_self=self.include_self)
        return ScanMixState(
            [load_into(peer, found) for peer in peers], candidates, data.images.new_zeros(0, 2, len(data))
        )

    def epoch(self, state: ScanMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """One turn of Algorithm 1's loop, or one epoch of its warm-up; returns losses and seconds by stage."""
        meter = Meter()
        if epoch < self._warmup_epochs(data):
            with meter.timed("warmup"):
                self._warm_up(state, data, epoch, meter)
            return meter.results() | {"rate/warmup": self.learning_rate}

        # p(clean | loss, gamma): each peer looks once at every example.
        with meter.timed("examine"):
            beliefs = [examine(peer, data) for peer in state.peers]
            losses = torch.stack([normalize_losses(belief.losses) for belief in beliefs])
            state.history = remember(state.history, losses, self.loss_memory)
            seen = state.history.mean(0) if state.severe else losses
            state.p_clean = torch.stack([clean_probability(row) for row in seen])
        if state.severe is None:
            state.severe = noise_rate(state.p_clean, self.clean_threshold) > self.severe_noise

        # E-step: q(z_ji) = 1 where neighbor j has the prediction of i.
        agree = [agreeing(state.candidates, belief.prediction) for belief in beliefs]

        # M-step: minimize l_MLE, then l_CLU. No peer grades its own homework.
        a, b = state.peers
        with meter.timed("learn"):
            self._learn(a, b, state.p_clean[1], state, data, epoch, meter)
            self._learn(b, a, state.p_clean[0], state, data, epoch, meter)
        with meter.timed("cluster"):
            self._cluster(a, agree[1], state, data, epoch, meter)
            self._cluster(b, agree[0], state, data, epoch, meter)
        return meter.results()

    def predictor(self, state: ScanMixState) -> Predictor:
        """Sum of the peers' logits (code; the paper has one network)."""
        return Predictor([classify(peer) for peer in state.peers])

    def _warm_up(self, state: ScanMixState, data: TrainingData, epoch: int, meter: Meter) -> None:
        """WarmUp(D, f): the classifier learns the given labels on features that no label has touched."""
        everything = torch.arange(len(data), device=data.labels.device)
        for side, peer in enumerate(state.peers):
            order = data.generator("warmup", epoch, f"order {side}")
            draws = data.generator("warmup", epoch, f"views {side}")
            for index in batches(everything, 2 * self.batch_size, order):
                images = data.views.strong(data.images[index], draws)
                with guessing(peer.encoder, batch_statistics=True):
                    features = peer.encoder(images)
                logits = peer.classifier(features)
                loss = F.cross_entropy(logits, data.labels[index])
                loss = loss + self.confidence_weight * confidence_penalty(logits)
                meter.add("warmup", loss=loss)
                peer.step(loss, self.learning_rate)

    def _learn(
        self,
        peer: Peer,
        other: Peer,
        p_clean: Tensor,
        state: ScanMixState,
        data: TrainingData,
        epoch: int,
        meter: Meter,
    ) -> None:
        """l_MLE over one pass of the clean set: MixMatch(X', U'), Eq. 7 and 8."""
        side = state.peers.index(peer)
        order, draws, mix = (
            data.generator("learn", epoch, f"{use} {side}") for use in ("order", "views", "mixup")
        )
        view = data.views.strong if state.severe else data.views.weak
        rate = step_decay(self.learning_rate, 0.1, epoch, (epochs_of(self.lr_drop, 1, self.epochs),))
        clean = divide(p_clean, self.clean_threshold, self.minimum_clean)
        labeled_set, unlabeled_set = clean.nonzero().squeeze(1), (~clean).nonzero().squeeze(1)
        steps = max(-(-len(labeled_set) // self.batch_size), self.minimum_steps)
        pairs = paired(labeled_set, unlabeled_set, self.batch_size, order, minimum_steps=self.minimum_steps)
        for step, (labeled, unlabeled) in enumerate(pairs):
            mixed = mixmatch(
                peer, other,
                [view(data.images[labeled], draws) for _ in range(2)],
                [view(data.images[unlabeled], draws) for _ in range(2)],
                data.one_hot(labeled), p_clean[labeled],
                temperature=self.sharpen_temperature, alpha=self.mixup_alpha, generator=mix,
                batch_statistics=self.guess_statistics == "batch",
            )  # fmt: skip
            since_warmup = epoch + step / steps - self._warmup_epochs(data)
            weight = self.unlabeled_weight * linear_ramp(since_warmup, self.unlabeled_ramp)
            with learning(peer):
                logits = peer.classifier(peer.encoder(mixed.inputs))
            loss, labeled_loss, unlabeled_loss, penalty = semi_supervised_loss(
                logits, mixed.targets, mixed.num_labeled, weight, self.prior_weight
            )
            meter.add("learn", labeled=labeled_loss, unlabeled=unlabeled_loss, prior=penalty, total=loss)
            peer.step(loss, rate)

    def _cluster(
        self, peer: Peer, agree: Tensor, state: ScanMixState, data: TrainingData, epoch: int, meter: Meter
    ) -> None:
        """l_CLU over every example with one neighbor of the same prediction each, Eq. 9."""
        side = state.peers.index(peer)
        order, draws, pick = (
            data.generator("cluster", epoch, f"{use} {side}") for use in ("order", "views", "pick")
        )
        view = data.views.strong if state.severe else data.views.weak
        rate = self.severe_cluster_rate if state.severe else self.cluster_rate
        partner = draw_neighbor(state.candidates, agree, pick)
        everything = torch.arange(len(data), device=data.labels.device)
        for index in batches(everything, self.cluster_batch_size, order, drop_last=True):
            with learning(peer):
                anchor = peer.clusterer(peer.encoder(view(data.images[index], draws)))
                neighbor = peer.clusterer(peer.encoder(view(data.images[partner[index]], draws)))
            loss, consistency, entropy = scan_loss(anchor, neighbor, self.entropy_weight)
            meter.add("cluster", consistency=consistency, entropy=entropy, total=loss)
            peer.step(loss, rate)

    def _warmup_epochs(self, data: TrainingData) -> int:
        steps_per_epoch = -(-len(data) // (2 * self.batch_size))
        return epochs_of(self.warmup, steps_per_epoch, self.epochs)
