"""PES, progressive early stopping (Bai et al., NeurIPS 2021). Legend: N examples, B batch.

Later layers memorize first. So training stops early. The last stage and the head are then trained again from fresh
weights on fixed features, then the head alone. After that only labels that the network predicts are learned.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.selection import class_weights
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.early_stopping import agrees, early_epoch, last_layers, reinit_and_refit
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer


@dataclasses.dataclass
class PESState:
    """One network, and fresh weights for its last parts when training is stopped."""

    peers: list[Peer]
    fresh: list[Peer]
    p_clean: Tensor | None = None  # (1, N) 1 where the label is the prediction, else 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PES:
    """Two stops, as for CIFAR-10; optimizer as in the paper."""

    State: ClassVar[type[PESState]] = PESState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "stops early, trains the last layers again, and goes on with the labels that it predicts",
        "The simple form: the other images are left out. `pes_semi` uses them without labels, for more passes.",
        "Bai et al., NeurIPS 2021", "those predicted", cost_in_words="1, then 0.9 to 1.7",
        group="correction", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 200  # E
    warmup: Duration = "25 epochs"  # T1, on all labels (30 for CIFAR-100)
    refit_stage: Count = 7  # T2: passes that train the last stage and the head alone, after warm-up
    refit_head: Count = 5  # T3: then passes that train the head alone
    refit_rate: Rate = 1e-4  # of Adam in both
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.1  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten (epoch 100 of 200), ...
    lr_second_drop: Duration = "75%"  # ... and again (150)
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 1e-4  # on all parameters
    fidelity: Fidelity = "paper"  # "released": SGD never moves the fresh layers, because it was built before

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> PESState:
        """Return one fresh network, and another whose last stage and head will be used."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in ("a", "b")]
        return PESState(peers[:1], peers[1:])

    def epoch(self, state: PESState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Warm up; or, after the refit of the last layers, learn the predicted labels, all classes equally."""
        (peer,), (fresh,), meter = state.peers, state.fresh, Meter()
        rate = decayed_rate(self, data, epoch, self.lr_drop, self.lr_second_drop)
        begin = data.epochs_in(self.warmup, self.batch_size, self.epochs)
        if epoch < begin:
            return early_epoch(peer, data, epoch, self.batch_size, rate)
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
        if len(agreed) < 2:  # too few to train on: take all labels as they are
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

    def passes(self, count: int, clean: float) -> Stages:
        """Count warm-up, the refit, then two forward passes over all examples and a step for each label agreed with."""
        first = min(self.epochs, epochs_in(self.warmup, count, self.batch_size, self.epochs))
        refit = Passes(forward_backward=count, weak=count) * self.refit_stage
        refit += Passes(forward_only=count, weak=count) * self.refit_head
        agreed = max(1, round(clean * count))
        turn = Passes(forward_only=2 * count, forward_backward=agreed, weak=2 * count + agreed)
        before = Passes(forward_backward=count, weak=count) * first + refit * (first < self.epochs)
        return {"training": before + turn * (self.epochs - first)}
