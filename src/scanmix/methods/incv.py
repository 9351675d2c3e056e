"""INCV, iterative noisy cross-validation, then Co-teaching (Chen et al., ICML 2019), Algorithms 2 and 3.

Legend: N examples, B batch, C classes.
Labels that a network predicts which was trained on the other half are selected; all else stays a candidate, or is
discarded. The paper trains the networks of both halves one after the other, here they take their epochs in turns.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from scanmix.blocks.cross_validated import mistakes_are_paired, wrong_among_agreeing, wrong_share
from scanmix.blocks.schedules import linear_ramp
from scanmix.blocks.selection import small_loss, with_every_class
from scanmix.config import STRICT, About, Batch, Count, Duration, Rate, Share, Weight, epochs_in
from scanmix.data.batches import TrainingData, batches, forever
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.methods.contract import sum_of_peers
from scanmix.methods.steps.cross_validation import halved, learn_and_look
from scanmix.methods.steps.schedule import decayed_rate
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer, reset


@dataclasses.dataclass
class INCVState:
    """Two networks, the weights they begin with, the division of the labels, and what is known of the noise."""

    peers: list[Peer]
    fresh: list[Peer]  # initial weights: of all rounds, the first; of Co-teaching, each of its network
    selected: Tensor  # (N,) bool, S
    candidate: Tensor  # (N,) bool, C; the labels in neither are discarded
    predicted: Tensor  # (N,) int64, by the network that did not learn the label, at its best epoch of the round
    losses: Tensor  # (N,) of the given labels, by the same
    best: Tensor  # (2,) held-out labels that each network predicts, at its best epoch of the round
    wrong: float = 0.0  # e, the estimated share of wrong labels
    paired: bool = False  # whether each class is mistaken for one other
    p_clean: Tensor | None = None  # (2, N) 1 where the label is selected, else 0; None in the first round


@dataclass(frozen=True, kw_only=True, config=STRICT)
class INCV:
    """Rounds and Co-teaching have half of the epochs each, as 4 x 50 and 200; SGD as for Co-teaching (paper: Adam)."""

    State: ClassVar[type[INCVState]] = INCVState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = None
    clean_threshold: ClassVar[float | None] = 0.5
    about: ClassVar[About] = About(
        "selects labels by repeated cross-validation, then does Co-teaching on them",
        "Its selection is cleaner than that of `co_teaching`, for many epochs more. It needs a network that learns\n"
        "from half of the images. The paper knows whether classes are mistaken for one other or for all; here it is\n"
        "estimated, as the share of wrong labels is in the paper.",
        "Chen et al., ICML 2019", "those of small loss among those that are predicted when held out",
        networks=2, rows=2, remembers=True, cost_in_words="1.3 to 2, then up to 2", oracle="mistakes",
        group="selection",
    )  # fmt: skip
    predictor = sum_of_peers

    epochs: Count = 400  # E, of all rounds and of Co-teaching
    selection: Duration = "50%"  # of all rounds together
    rounds: Count = 4  # N: rounds of cross-validation; fewer where there are fewer epochs
    most_discarded: Weight = 2.0  # of a half at most so many times the labels that it predicts; else e / (1 - e) times
    batch_size: Batch = 128  # B
    learning_rate: Rate = 0.02  # of SGD; in a round times 1/2, 1/4, 1/10 after 40, 60, 80 % of its epochs (code)
    lr_drop: Duration = "75%"  # when the learning rate is divided by ten, in the middle of Co-teaching
    momentum: Share = 0.9  # of SGD
    weight_decay: Weight = 5e-4  # on all parameters
    mistakes: Literal["even", "paired"] | None = None  # a class is mistaken for all others, or for one; None: estimated
    gradual: Duration = "10 epochs"  # over which the share left out by Co-teaching rises from 0 to e_S
    candidates_after: Duration = "10%"  # epochs of Co-teaching without candidates (40 of 400), ...
    candidates_after_severe: Duration = "20%"  # ... if mistakes are paired or e is above 0.6 (80)

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> INCVState:
        """Return the equal networks of the first round, and the weights of later ones. Trusted labels are selected."""
        peers = [make_peer(network, data, engine, name, self.momentum, self.weight_decay) for name in "aaab"]
        none = torch.zeros(len(data), dtype=torch.bool, device=engine.device)
        selected = none if data.trusted is None else data.trusted.clone()
        zeros = torch.zeros_like(data.labels)
        return INCVState(peers[:2], peers[2:], selected, ~selected, zeros, zeros.float(), zeros.new_zeros(2).float())

    def epoch(self, state: INCVState, data: TrainingData, epoch: int) -> dict[str, float]:
        """Train both networks of a round for an epoch, and select after its last; or do Co-teaching for an epoch."""
        meter = Meter()
        begin = data.epochs_in(self.selection, self.batch_size, self.epochs)
        if epoch < begin:
            rounds = min(self.rounds, begin)
            turn = (rounds * (epoch + 1) - 1) // begin
            first, end = begin * turn // rounds, begin * (turn + 1) // rounds
            halves = halved(state.candidate, data.generator("select", turn, "split"))
            selected = state.selected.nonzero().squeeze(1)
            rate = self.learning_rate * (1.0, 1.0, 0.5, 0.25, 0.1)[5 * (epoch - first) // (end - first)]
            for side, peer in enumerate(state.peers):
                if epoch == first > 0:
                    reset(peer, state.fresh[0])
                learned, held, draw = torch.cat([selected, halves[side]]), halves[1 - side], (f"half {side}", epoch)
                found = learn_and_look(peer, data, learned, held, self.batch_size, rate, draw, meter)
                predicted = float((found.prediction == data.labels[held]).double().sum())
                if epoch == first or predicted > float(state.best[side]):
                    state.best[side] = predicted
                    state.losses[held], state.predicted[held] = found
            if epoch + 1 == end:
                self.select(state, data, halves, estimated=turn == 0)
        else:
            for peer, fresh in zip(state.peers, state.fresh, strict=True) if epoch == begin else ():
                reset(peer, fresh)
            rate = decayed_rate(self, data, epoch, self.lr_drop)
            self._co_teach(state, data, epoch, epoch - begin, rate, meter)
        shares = {"selected": float(state.selected.float().mean()), "candidates": float(state.candidate.float().mean())}
        return meter.results() | {"rate/learn": rate, "wrong": state.wrong, "paired": float(state.paired)} | shares

    def passes(self, count: int, clean: float) -> Stages:
        """Count halves of the candidates with what is selected, each half looked at, then Co-teaching.

        None is discarded, and each round selects as much.
        """
        begin = epochs_in(self.selection, count, self.batch_size, self.epochs)
        rounds, found = min(self.rounds, max(1, begin)), Passes()
        for turn in range(rounds):
            selected = round(clean * count * turn / rounds)
            learned = count + selected
            length = begin * (turn + 1) // rounds - begin * turn // rounds
            found += Passes(forward_backward=learned, forward_only=count - selected, weak=learned) * length
        chosen = max(1, round(clean * count))
        both = chosen + min(count - chosen, chosen // 2)
        first = min(self.epochs - begin, epochs_in(self.candidates_after, count, self.batch_size, self.epochs))
        for rows, length in ((chosen, first), (both, self.epochs - begin - first)):
            found += Passes(forward_backward=2 * rows, weak=rows) * length
        return {"training": found}

    def largest_batch(self, count: int) -> int:
        """Return the rows of both networks: a batch of selected labels, and half as many candidates."""
        return 2 * min(count, self.batch_size + self.batch_size // 2)

    def select(self, state: INCVState, data: TrainingData, halves: tuple[Tensor, Tensor], *, estimated: bool) -> None:
        """Select the labels that were predicted, and discard those of largest loss; at first e is estimated.

        Where mistakes are paired none is discarded, as a label of large loss may be right. Shape: two (M,) int64.
        """
        agree = state.candidate & (state.predicted == data.labels)
        if estimated:
            candidates, classes = state.candidate.nonzero().squeeze(1), data.num_classes
            paired = mistakes_are_paired(data.labels[candidates], state.predicted[candidates], classes)
            state.paired = paired if self.mistakes is None else self.mistakes == "paired"
            state.wrong = wrong_share(float(agree[candidates].double().mean()), self.mistaken_for(state, classes))
        ratio = min(self.most_discarded, state.wrong / (1 - state.wrong))
        for half in () if state.paired else halves:
            count = min(len(half), int(ratio * int(agree[half].sum())))
            largest = state.losses[half].argsort(descending=True, stable=True)[:count]
            state.candidate[half[largest]] = False
        state.selected = state.selected | agree
        state.candidate = state.candidate & ~agree
        state.p_clean = state.selected.float().expand(2, -1).clone()

    def mistaken_for(self, state: INCVState, num_classes: int) -> int:
        """Return how many classes each is mistaken for."""
        return 1 if state.paired else max(1, num_classes - 1)

    def _co_teach(
        self, state: INCVState, data: TrainingData, epoch: int, since: int, rate: float, meter: Meter
    ) -> None:
        """Each network learns what has a small loss by the other, of a batch from S and later also from C."""
        left_out = wrong_among_agreeing(state.wrong, self.mistaken_for(state, data.num_classes))
        left_out *= linear_ramp(since, data.epochs_in(self.gradual, self.batch_size, self.epochs))
        after = self.candidates_after_severe if state.paired or state.wrong > 0.6 else self.candidates_after
        joined = since >= data.epochs_in(after, self.batch_size, self.epochs)
        order, draws = data.generators("learn", epoch, "order", "views")
        chosen = with_every_class(state.selected, data.labels, data.num_classes)
        known, rest = chosen.nonzero().squeeze(1), (state.candidate & ~chosen).nonzero().squeeze(1)
        few = min(len(rest) * self.batch_size // len(known), self.batch_size // 2) if joined else 0
        candidates = forever(rest, few, order) if few else None
        for peer in state.peers:
            peer.train()
        with meter.timed("learn"):
            for batch in batches(known, self.batch_size, order):
                whole = batch if candidates is None else torch.cat([batch, next(candidates)])
                index = state.peers[0].shard(whole)
                views = data.views.weak(data.images[index], draws)
                logits = [peer.logits(views) for peer in state.peers]
                rows = state.peers[0].all_gather(index)
                losses = [F.cross_entropy(row, data.labels[rows], reduction="none") for row in logits]
                share = round(len(batch) * (1 - left_out)) / len(whole)
                small = [small_loss(row.detach(), share, data.trusts(rows)) for row in losses]
                for side, peer in enumerate(state.peers):
                    loss = losses[side][small[1 - side]].mean()
                    meter.add("learn", loss=loss)
                    peer.step(loss, rate)
