"""PES, progressive early stopping (Bai et al., NeurIPS 2021). Legend: N examples, B batch.

Later layers memorize first. So training stops early, the last stage and the head begin anew on features that stay as
they are, then the head alone; from then on only labels that the network agrees with are learned.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.schedules import step_decay
from scanmix.blocks.selection import class_weights
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches, labeled_views
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.steps.early_stopping import agrees, last_layers, reinit_and_refit
from scanmix.methods.steps.warmup import warm_up
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, classify
from scanmix.networks.peer import Peer, make_peer


@dataclasses.dataclass
class PESState:
    """One network, and another whose last parts it is given when training is stopped."""

    peers: list[Peer]
    fresh: list[Peer]
    p_clean: Tensor | None = None  # (1, N) 1 where the label is that predicted


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PES:
    """Two stops, as for CIFAR-10; optimizer as in the paper, the last epoch counts."""

    State: ClassVar[type[PESState]] = PESState
    self_supervised: ClassVar[bool] = False
    about: ClassVar[About] = About(
        "stops early, learns the last layers anew, and goes on with the labels that it agrees with",
        "The plain form: nothing is made of the other images. `pes_semi` does more with them, for more passes.",
        "Bai et al., NeurIPS 2021", "those predicted", passes="1, then 0.9 to 1.7",
    )  # fmt: skip

    epochs: Count = 200  # E
    warmup: Duration = "25 epochs"  # T1, on all labels (30 for CIFAR-100)
    refit_stage: Count = 7  # T2: passes in which the last stage and the head alone are learned, after the last of these
    refit_head: Count = 5  # T3: then passes of the head alone
    refit_rate: Rate = 1e-4  # of Adam in both
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.1  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten (epoch 100 of 200), ...
    lr_second_drop: Duration = "75%"  # ... and again (150)
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    fidelity: Fidelity = "paper"  # "released": SGD was built before and never moves what was renewed

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> PESState:
        """Return one fresh network, and another whose last stage and head will be used."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        return PESState(peers[:1], peers[1:])

    def epoch(self, state: PESState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm up; or, the last parts once renewed, learn the labels that are predicted, rare classes as much."""
        (peer,), (fresh,), meter = state.peers, state.fresh, Meter()
        drops = [data.epochs_in(drop, self.batch_size, self.epochs) for drop in (self.lr_drop, self.lr_second_drop)]
        rate = step_decay(self.learning_rate, 0.1, epoch, (drops[0], drops[1]))
        begin = data.epochs_in(self.warmup, self.batch_size, self.epochs)
        if epoch < begin:
            seen = labeled_views(data, data.views.weak, data.labels, self.batch_size, "warmup", epoch, peer.shard)
            with meter.timed("warmup"):
                warm_up(peer, "network", seen, rate, 0.0, meter)
            return meter.results() | {"rate/warmup": rate}
        if epoch == begin:
            with meter.timed("refit"):
                reinit_and_refit(
                    peer, fresh, "last stage", self.refit_stage, self.refit_rate, self.batch_size, data, meter
                )
                reinit_and_refit(peer, fresh, "head", self.refit_head, self.refit_rate, self.batch_size, data, meter)
        last_layers(peer, "last stage").requires_grad_(self.fidelity == "paper")
        with meter.timed("examine"):
            state.p_clean = peer.engine.broadcast(agrees(peer, data, epoch).float().unsqueeze(0))
        agreed = state.p_clean[0].nonzero().squeeze(1)
        if len(agreed) < 2:  # as good as nothing: all labels are taken as they are
            agreed = data.everything
        weights = class_weights(data.labels[agreed], data.num_classes, most=float("inf"))
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(agreed, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                labels = peer.all_gather(data.labels[index])
                loss = F.cross_entropy(logits, labels, weights)
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate}

    def predictor(self, state: PESState) -> Predictor:
        """Return the network itself."""
        return Predictor([classify(peer) for peer in state.peers])
