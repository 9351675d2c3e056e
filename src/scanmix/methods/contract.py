"""The contract of a method: what the loop, the doctor, the report and the tests ask of it, and nothing else.

Methods do not inherit. A member that many methods share is a function at the end of this file, and a method takes it by
name: `predictor = sum_of_peers`. A method that lacks a member, or misspells it, fails mypy and
`tests/methods/test_contract.py`.
Legend: N examples, B batch, P peers.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from scanmix.config import About, UserError, epochs_in
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor, classify
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.stages import Pretraining


class State(Protocol):
    """What every state holds. A checkpoint saves all fields of a state: tensors, numbers, flags, lists of peers."""

    peers: list[Peer]
    p_clean: Tensor | None
    """(P, N) probability that each given label is right, by each peer; None before the first division and without."""


class Method(Protocol):
    """Settings of a method, and what is asked of them."""

    State: ClassVar[Any]
    """Dataclass of what one epoch hands to the next."""
    about: ClassVar[About]
    """What the method says of itself: idea, advice, paper, number of networks, cost."""
    self_supervised: ClassVar[bool]
    """True where no label is learned from: accuracy is then measured after matching clusters with true classes."""
    heads: ClassVar[Heads | None]
    """Heads that its peers have besides classifier and clusterer; None where they have no others.

    The loop makes the peers of a checkpoint with these heads, so `start` must give them to `make_peer`.
    """

    @property
    def clean_threshold(self) -> float | None:
        """`p_clean` above which a label counts as right (0..1); None where the method does not divide the labels."""

    @property
    def epochs(self) -> int:
        """How often the loop calls `epoch`."""

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Any:
        """Return the state before the first epoch."""

    def epoch(self, state: Any, data: TrainingData, epoch: int) -> dict[str, float]:
        """Advance the state by one epoch, counted from 0; return the numbers that go into `metrics.jsonl`."""

    def predictor(self, state: Any) -> Predictor:
        """Return the network that predicts for the state. It shares the weights of the state."""

    def passes(self, count: int, clean: float) -> Stages:
        """Count the images of a whole run on `count` examples, by stage, when a share `clean` (0..1) of labels is kept.

        Accuracy and snapshots, which the loop measures, are not counted.
        """

    def largest_batch(self, count: int) -> int:
        """Return how many images the largest step with gradients holds, of `count` in all."""


class _Counted(Protocol):
    about: ClassVar[About]

    @property
    def epochs(self) -> int: ...


class _Batched(Protocol):
    about: ClassVar[About]

    @property
    def batch_size(self) -> int: ...


def sum_of_peers(method: object, state: State) -> Predictor:
    """Member `predictor`: the sum of the peers' logits; the network itself where there is one."""
    return Predictor([classify(peer) for peer in state.peers])


def known_labels(trusted: Tensor | None, method: str) -> Tensor:
    """Return which labels are known to be right, for a method that learns from them. Shape: (N,) bool -> (N,) bool.

    Raises:
        UserError: none is.
    """
    if trusted is None:
        raise UserError(
            f"{method} learns from labels that are known to be right, and none is marked so; "
            "add a column `trusted` to the table of labels, or choose another method"
        )
    return trusted


FIRST_PARTS = ("warmup", "mild_warmup", "begin", "estimation", "burn_in")
"""Settings of how long a method learns all labels as they are, before it does what it is known for."""


def first_part(method: Any, count: int) -> tuple[int, dict[str, int | str]]:
    """Return how many epochs a method on `count` examples may learn all labels as they are, and the settings of that.

    Those of the method within, where there is one (`scan_dividemix`, `c2d`). No such setting: 0 epochs.
    """
    inner, prefix = (method.dividemix, "dividemix.") if hasattr(method, "dividemix") else (method, "")
    found = {prefix + name: getattr(inner, name) for name in FIRST_PARTS if hasattr(inner, name)}
    if hasattr(inner, "epochs_in"):  # a step of DivideMix and ScanMix is a batch of warm-up
        return sum(inner.epochs_in(duration, count) for duration in found.values()), found
    return sum(epochs_in(each, count, inner.batch_size, inner.epochs) for each in found.values()), found


def same_every_epoch(method: _Counted, count: int, clean: float) -> Stages:
    """Member `passes`: all epochs are alike, and `about` says what one costs for each example."""
    about = method.about
    epoch = Passes(about.forward_backward, about.forward_only, about.weak) * count
    return {"training": epoch * method.epochs}


def rows_of_a_step(method: _Batched, count: int) -> int:
    """Member `largest_batch`: a batch of `batch_size` examples, `about.rows` images of each."""
    return method.about.rows * min(count, method.batch_size)


def pretraining_passes(pretrain: Pretraining, clustering: Clustering | None, count: int) -> Stages:
    """Count the self-supervised stages: features, one forward pass over all examples, then SCAN where there is one."""
    first = {"pre-training": pretrain.passes(count) + Passes(forward_only=count)}
    return first if clustering is None else first | {"clustering": clustering.passes(count)}


def largest_pretraining_batch(pretrain: Pretraining, clustering: Clustering | None, count: int) -> int:
    """Return how many images the largest step of the self-supervised stages holds: two for each example of a batch."""
    sizes = [pretrain.batch_size] + ([] if clustering is None else [clustering.batch_size])
    return max(2 * min(count, size) for size in sizes)
