"""ScanMix (Sachdeva et al., Pattern Recognition 2023), Algorithm 1. Paper against code: `docs/fidelity.md`.
Legend: N examples, B batch, C classes, K neighbors, P = 2 peers.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.divide import clean_probabilities, divide, noise_rate, normalize_losses
from scanmix.blocks.losses import scan_loss, semi_supervised_loss
from scanmix.blocks.memory import append_epoch
from scanmix.blocks.neighbors import agreeing, draw_neighbor, voted_labels
from scanmix.blocks.schedules import linear_ramp
from scanmix.blocks.trust import keep_given, pinned
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches, labeled_views, paired
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import largest_pretraining_batch, pretraining_passes, sum_of_peers
from scanmix.methods.steps.division import divided_passes
from scanmix.methods.steps.mixmatch import mixmatch
from scanmix.methods.steps.schedule import rate_after_drops
from scanmix.methods.steps.warmup import TrainedPart, warm_up
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.passes import Passes, Stages, whole_batches
from scanmix.networks.peer import Heads, Peer, make_peer, turns_with_ema
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR
from scanmix.pretrain.stages import Pretraining, candidate_neighbors, current_neighbors, load_into, pretrain


@dataclasses.dataclass
class ScanMixState:
    """What one epoch hands to the next."""

    peers: list[Peer]
    candidates: Tensor  # N_x: (N, K) neighbors, or (N, K + 1) with the example itself first
    history: Tensor  # (H, P, N) normalized losses of the last epochs
    p_clean: Tensor | None = None  # (P, N) probability that each given label is right, by each peer
    severe: bool | None = None  # whether noise is severe; None until the end of warm-up


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScanMix:
    """Semantic clustering and semi-supervised learning in turns; defaults are the paper's CIFAR-10 runs."""

    State: ClassVar[type[ScanMixState]] = ScanMixState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    about: ClassVar[About] = About(
        "DivideMix and SCAN in turns: labels that look right, neighbors that agree",
        "As `scan_dividemix`, and every image, whatever its label, is pulled to a neighbor that seems to be of its\n"
        "class. Take it to find the wrong labels; for a classifier `ssr` was ahead on small gray images.",
        "Sachdeva et al., Pattern Recognition 2023, Algorithm 1", "those that look right; the rest as unlabeled",
        networks=2, rows=4, cost_in_words="pre-training, 7 to 17",
        oracle="clean_threshold, loss_memory, confidence_weight", group="scanmix", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers

    # How long: the whole run, and its first part, in which all given labels are learned.
    epochs: Count = 300  # E, section 4.2; warm-up included
    warmup: Duration = "10 epochs"  # WarmUp; 30 epochs for CIFAR-100 (code)

    # Features and clusters that are learned without labels, and the neighbors that they give.
    pretrain: Pretraining = SimCLR()  # PreTrain, section 4.2
    clustering: Clustering = Clustering()  # between PreTrain and WarmUp (code; not in Algorithm 1)
    name_clusters: bool = False  # count which cluster is which class before WarmUp (ours, for small data)
    propagate_classes: bool = False  # both heads start from classes that labels spread to (ours, for small data)
    num_neighbors: Count = 20  # K, section 4.2
    neighbor_refresh: int = 0  # epochs between searches for neighbors in the peers' features (footnote 2); 0: never
    include_self: bool = True  # the example is among its own candidates (code; not in the paper)

    # Batches of l_MLE, and the optimizer of both losses.
    batch_size: Batch = 64  # of each set; two views of each image make 4B rows a step
    minimum_steps: int = 0  # a small clean set is passed over again until so many steps are done
    minimum_clean: Count = 1  # the likeliest examples kept as clean when the threshold leaves fewer
    learning_rate: Rate = 0.02  # section 4.2
    warmup_rate: Rate = 0.02  # the same in warm-up
    lr_drop: Duration = "50%"  # when it is divided by ten, section 4.2, ...
    lr_second_drop: Duration | None = None  # ... and again (epoch 250 on Red Mini-ImageNet, section 4.2)
    momentum: Share = 0.9  # section 4.2
    weight_decay: Weight = 5e-4  # section 4.2
    share_momentum: bool = True  # one momentum buffer for all tasks (code); each task starts without momentum when off

    # Division of the labels by their loss, and the semi-supervised loss l_MLE.
    clean_threshold: Share = 0.5  # tau, Eq. 8
    mixture: Literal["all", "class"] = "all"  # of the losses of all examples, or of each given label (ours)
    reg_covar: Rate = 5e-4  # added to the variances of the mixture (code; 1e-3 on Red Mini-ImageNet)
    loss_memory: Count = 1  # epochs of losses averaged under severe noise (5 in the code for 90 % noise)
    sharpen_temperature: Rate = 0.5  # T of MixMatch
    mixup_alpha: Weight = 4.0  # alpha of MixUp's Beta(alpha, alpha)
    unlabeled_weight: Weight = 25.0  # lambda_u, section 3.2 (DivideMix sets it by the known rate of the noise)
    unlabeled_ramp: Weight = 16.0  # epochs over which lambda_u grows from 0
    prior_weight: Weight = 1.0  # lambda_r, section 3.2

    # What warm-up learns, and from what.
    confidence_weight: Weight = 0.0  # penalty in warm-up (1 in the code, if the noise is known to be asymmetric)
    mild_warmup: Duration = 0  # where noise is not severe the whole network then learns all labels (ours)
    warmup_view: Literal["weak", "strong"] = "strong"  # of the images in warm-up (code)
    vote_rounds: int = 0  # rounds of neighbor votes that clean the labels of WarmUp (ours, for small data)
    warmup_part: TrainedPart = "head"  # what WarmUp trains (the paper does not say)
    guess_statistics: Literal["batch", "running"] = "batch"  # batch norm of the trained peer while it predicts targets

    # The semantic clustering loss l_CLU; it has batches and a learning rate of its own.
    entropy_weight: Weight = 5.0  # lambda_e, Eq. 9: 5 in every published configuration, 2 in section 4.2
    cluster_batch_size: Batch = 128  # section 4.2
    cluster_rate: Weight = 1e-5  # learning rate of l_CLU, section 4.2 (0 leaves it out), ...
    severe_cluster_rate: Weight = 1e-3  # ... and under severe noise

    # What severe noise is, and what it changes.
    severe_noise: Share = 0.6  # |U| / |D| after warm-up above which noise is severe, section 4.2
    view: Literal["weak", "strong"] = "weak"  # of the images that are learned from, ...
    severe_view: Literal["weak", "strong"] = "strong"  # ... and under severe noise (code; not in the paper)
    cluster_view: Literal["weak", "strong"] | None = None  # in l_CLU alone (code for web data); None: as in l_MLE

    # Readings of the equations, and the second network.
    agreement: Literal["other", "own", "given"] = "other"  # whose labels q compares: Eq. 9 own, Eq. 5 given
    shared_head: bool = False  # l_CLU through the classifier (literal Eq. 6) or its own head (code)
    second_peer: Literal["trained", "average"] = "trained"  # or the running average of the first (ours): half the cost
    average_decay: Share = 0.99  # decay of that average in each step

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> ScanMixState:
        """Run PreTrain(D): features, neighbors N_x and clusters without labels; both peers start from them."""
        found = pretrain(self.pretrain, self.clustering, self.num_neighbors, self.include_self, data, network, engine)
        names = ("a", "b") if self.second_peer == "trained" else ("a", "a")
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in names]
        load_into(peers, found, data if self.name_clusters else None, data if self.propagate_classes else None)
        history = torch.zeros(0, 2, len(data), device=engine.device)
        return ScanMixState(peers, candidate_neighbors(found.neighbors, self.include_self), history)

    def epoch(self, state: ScanMixState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Run one turn of Algorithm 1's loop, or one epoch of its warm-up."""
        meter, begin = Meter(), self.epochs_in(self.warmup, len(data))
        if epoch < begin:
            labels = voted_labels(state.candidates, data.labels, data.num_classes, self.vote_rounds, data.trusted)
            return self._warm_up(self.warmup_part, labels, self.warmup_rate, state, data, epoch, meter)
        # p(clean | loss, gamma): one forward pass of each peer over all examples.
        with meter.timed("examine"):
            found = [per_sample_losses(peer, data) for peer in state.peers]
            losses = torch.stack([normalize_losses(each.losses) for each in found])
            state.history = append_epoch(state.history, losses, self.loss_memory)
            averaged = state.history.mean(0) if state.severe else losses
            p_clean = clean_probabilities(averaged, data.labels if self.mixture == "class" else None, self.reg_covar)
            state.p_clean = state.peers[0].engine.broadcast(pinned(p_clean, data.trusted))
        if state.severe is None:
            state.severe = noise_rate(state.p_clean, self.clean_threshold) > self.severe_noise
        begin += 0 if state.severe else self.epochs_in(self.mild_warmup, len(data))
        if epoch < begin:
            return self._warm_up("network", data.labels, self.learning_rate, state, data, epoch, meter)
        # E-step: q(z_ji) = 1 where neighbor j has the label that example i has.
        if self.neighbor_refresh and (epoch - begin) % self.neighbor_refresh == 0:
            state.candidates = current_neighbors(state.peers, data, self.num_neighbors, self.include_self)
        a, b = (keep_given(each.prediction, data.labels, data.trusted) for each in found)
        compared = {"other": (b, a), "own": (a, b), "given": (data.labels, data.labels)}[self.agreement]
        agree = [agreeing(state.candidates, labels) for labels in compared]

        # M-step: minimize l_MLE, then l_CLU. Each peer learns from the division of the other.
        rate = rate_after_drops(self, len(data), epoch)
        cluster_rate = self.severe_cluster_rate if state.severe else self.cluster_rate
        with meter.timed("learn"):
            for side in turns_with_ema(state.peers, self.second_peer, self.average_decay):
                self._train_pass(side, state.p_clean[1 - side], state, data, epoch, rate, epoch - begin, meter)
        with meter.timed("cluster"):
            for side in turns_with_ema(state.peers, self.second_peer, self.average_decay) if cluster_rate else ():
                self._cluster(side, agree[side], state, data, epoch, cluster_rate, meter)
        return meter.results() | {"rate/learn": rate, "rate/cluster": cluster_rate}

    def passes(self, count: int, clean: float) -> Stages:
        """Count the self-supervised stages, WarmUp, mild warm-up under mild noise, and the turns of the loop."""
        severe = 1 - clean > self.severe_noise
        view = self.severe_view if severe else self.view
        warmup = min(self.epochs, self.epochs_in(self.warmup, count))
        mild = 0 if severe else min(self.epochs - warmup, self.epochs_in(self.mild_warmup, count))
        trained = 2 if self.second_peer == "trained" else 1
        views = Passes(**{self.warmup_view: (rows := trained * count)})
        first = views + (Passes(forward_only=rows) if self.warmup_part == "head" else Passes(forward_backward=rows))
        second = views + Passes(forward_backward=rows, forward_only=2 * count)
        turn = divided_passes(count, clean, self.batch_size, self.minimum_steps, view, trained)
        if self.severe_cluster_rate if severe else self.cluster_rate:
            pairs = 2 * trained * whole_batches(count, self.cluster_batch_size)
            turn += Passes(forward_backward=pairs) + Passes(**{self.cluster_view or view: pairs})
        naming = Passes(forward_only=count * (2 * self.name_clusters + self.propagate_classes))
        training = naming + first * warmup + second * mild + turn * (self.epochs - warmup - mild)
        return pretraining_passes(self.pretrain, self.clustering, count) | {"training": training}

    def largest_batch(self, count: int) -> int:
        """Return the largest of the batches of the self-supervised stages and of l_MLE."""
        return max(largest_pretraining_batch(self.pretrain, self.clustering, count), 4 * min(count, self.batch_size))

    def epochs_in(self, duration: int | str, count: int) -> int:
        """Return a duration in epochs of `count` examples; a step is a batch of warm-up."""
        return epochs_in(duration, count, 2 * self.batch_size, self.epochs)

    def _warm_up(
        self, part: TrainedPart, labels: Tensor, rate: float, state: ScanMixState, data: TrainingData, epoch: int,
        meter: Meter,
    ) -> dict[str, float]:  # fmt: skip
        """Run WarmUp(D, f): the classifier learns the labels, alone on fixed features, or the whole network does."""
        view = data.views.random_view(self.warmup_view)
        with meter.timed("warmup"):
            for side in turns_with_ema(state.peers, self.second_peer, self.average_decay):
                peer = state.peers[side].begin(self.share_momentum)
                steps = labeled_views(data, view, labels, 2 * self.batch_size, f"warmup {side}", epoch, peer.shard)
                warm_up(peer, part, steps, rate, self.confidence_weight, meter)
        return meter.results() | {"rate/warmup": rate}

    def _train_pass(
        self, side: int, p_clean: Tensor, state: ScanMixState, data: TrainingData, epoch: int, rate: float, since: int,
        meter: Meter,
    ) -> None:  # fmt: skip
        """Minimize l_MLE (Eq. 7) in one pass over the clean set of the other peer (Eq. 8)."""
        peer, other = state.peers[side].begin(self.share_momentum), state.peers[1 - side]
        view = data.views.random_view(self.severe_view if state.severe else self.view)
        order, draws, mix = data.generators(f"learn {side}", epoch, "order", "views", "mixup")
        in_batch = self.guess_statistics == "batch"
        divided = divide(p_clean, self.clean_threshold, self.minimum_clean)
        pairs = [map(peer.shard, pair) for pair in paired(divided, self.batch_size, order, self.minimum_steps)]
        for step, (labeled, unlabeled) in enumerate(pairs):
            views = data.sample_views(view, (labeled, labeled, unlabeled, unlabeled), draws)
            x, u, y, p = views[:2], views[2:], data.one_hot(labeled), p_clean[labeled]
            mixed = mixmatch(peer, other, x, u, y, p, self.sharpen_temperature, self.mixup_alpha, mix, in_batch)
            weight = self.unlabeled_weight * linear_ramp(since + step / len(pairs), self.unlabeled_ramp)
            peer.train()
            logits = peer.logits(mixed.inputs)
            losses = semi_supervised_loss(logits, mixed.targets, mixed.num_labeled, weight, self.prior_weight)
            meter.add("learn", **losses._asdict())
            peer.step(losses.total, rate)

    def _cluster(
        self, side: int, agree: Tensor, state: ScanMixState, data: TrainingData, epoch: int, rate: float, meter: Meter
    ) -> None:
        """Minimize l_CLU (Eq. 9) over every example, each with one neighbor for which q = 1."""
        peer = state.peers[side].begin(self.share_momentum)
        head = peer.classifier if self.shared_head else peer.clusterer
        view = data.views.random_view(self.cluster_view or (self.severe_view if state.severe else self.view))
        order, draws, pick = data.generators(f"cluster {side}", epoch, "order", "views", "neighbors")
        partner = draw_neighbor(state.candidates, agree, pick)
        for index in map(peer.shard, batches(data.everything, self.cluster_batch_size, order, drop_last=True)):
            anchors, neighbors = data.sample_views(view, (index, partner[index]), draws)
            peer.train()
            anchor, neighbor = (peer.all_gather(head(peer.encoder(views))) for views in (anchors, neighbors))
            loss, consistency, entropy = scan_loss(anchor, neighbor, self.entropy_weight)
            meter.add("cluster", total=loss, consistency=consistency, entropy=entropy)
            peer.step(loss, rate)
