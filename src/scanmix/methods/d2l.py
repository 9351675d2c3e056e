"""D2L, dimensionality-driven learning (Ma et al., ICML 2018). Legend: N examples, B batch.

The local intrinsic dimensionality (LID) of features falls while classes are learned, and rises when wrong labels are
memorized. At that point the last epoch is undone, and from then on each target is a blend of label and prediction.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.dimensionality import intrinsic_dimensionality, turns
from scanmix.blocks.losses import soft_cross_entropy
from scanmix.blocks.robust import bootstrap_targets
from scanmix.blocks.trust import keep_given
from scanmix.config import STRICT, About, Batch, Count, Duration, Fidelity, Rate, Share, Weight
from scanmix.data.batches import TrainingData, batches
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import inference
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer, reset


@dataclasses.dataclass
class D2LState:
    """One network, its weights an epoch ago, and the dimensionality of each epoch."""

    peers: list[Peer]
    older: list[Peer]  # the network before the last epoch, to which the turning point goes back
    lids: Tensor  # (epochs so far,) LID at the start of each
    turned: bool = False
    p_clean: Tensor | None = None  # always None: labels are blended, not divided


@dataclass(frozen=True, kw_only=True, config=STRICT)
class D2L:
    """Defaults are those of CIFAR-10, optimizer as for cross-entropy."""

    State: ClassVar[type[D2LState]] = D2LState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = None
    about: ClassVar[About] = About(
        "uses its own predictions once the dimensionality of its features begins to rise",
        "Where there is no turning point it equals `cross_entropy`; under heavy noise it can confirm its own\n"
        "mistakes. `lid` and `trust` in `metrics.jsonl` show which.",
        "Ma et al., ICML 2018", cost_in_words="1",
        group="correction", measured=True,
    )  # fmt: skip
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 120  # E
    begin: Duration = "33%"  # earliest turning point (epoch 40 of 120)
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD
    lr_drop: Duration = "50%"  # when the learning rate is divided by ten
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    window: Count = 5  # epochs before; a turning point is two deviations above their mean
    num_neighbors: Count = 20  # k of the estimate
    probe_size: Batch = 128  # images in each batch of the estimate, which depends on it
    probes: Count = 10  # batches of the estimate
    fidelity: Fidelity = "paper"  # "released": nothing is undone, because the older weights were overwritten

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> D2LState:
        """Return one fresh network, twice."""
        peers = [make_peer(network, data, engine, "a", self.momentum, self.weight_decay) for _ in range(2)]
        return D2LState(peers[:1], peers[1:], torch.zeros(0, device=engine.device))

    def epoch(self, state: D2LState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Measure dimensionality, go back an epoch if it has just turned, then train on all examples once."""
        (peer,), meter = state.peers, Meter()
        with meter.timed("examine"):
            lid = self._measure(peer, data, epoch)
            state.lids = torch.cat([state.lids, state.lids.new_tensor([lid])])
        begin = data.epochs_in(self.begin, self.batch_size, self.epochs)
        if not state.turned and len(state.lids) > begin + self.window and turns(state.lids, self.window):
            state.turned = True
            if self.fidelity == "paper":
                reset(peer, state.older[0])
        reset(state.older[0], peer)
        trust = math.exp(-(epoch / self.epochs) * lid / float(state.lids.min())) if state.turned else 1.0
        rate = decayed_rate(self, data, epoch, self.lr_drop)
        order, draws = data.generators("learn", epoch, "order", "views")
        peer.train()
        with meter.timed("learn"):
            for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
                logits = peer.logits(data.views.weak(data.images[index], draws))
                rows = peer.all_gather(index)
                given = data.one_hot(rows)
                targets = bootstrap_targets(logits.detach(), given, trust, hard=True)
                targets = keep_given(targets, given, data.trusts(rows))
                loss = soft_cross_entropy(logits, targets)
                meter.add("learn", loss=loss)
                peer.step(loss, rate)
        return meter.results() | {"rate/learn": rate, "lid": lid, "trust": trust}

    def passes(self, count: int, clean: float) -> Stages:
        """Count epochs of cross-entropy, and the batches of eval views in which dimensionality is measured."""
        probed = self.probes * min(self.probe_size, count)
        return {"training": Passes(forward_backward=count, weak=count, forward_only=probed) * self.epochs}

    def _measure(self, peer: Peer, data: TrainingData, epoch: int) -> float:
        """Return the mean LID of a few batches of eval views."""
        draw = data.generator("examine", epoch, "order")
        found = []
        with inference(peer, batch_statistics=False):
            for _ in range(self.probes):
                index = torch.randperm(len(data), generator=draw, device=draw.device)[: self.probe_size]
                found.append(intrinsic_dimensionality(peer.encoder(data.eval_view(index)), self.num_neighbors))
        return float(peer.engine.broadcast(torch.cat(found).mean()))
