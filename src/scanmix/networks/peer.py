"""A peer network: an encoder, named heads and the optimizer that moves them.

Legend: N examples, B batch, C classes, D features.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.networks.ema import ema_update
from scanmix.networks.encoders import Encoder, NetworkSettings, equip

Heads: TypeAlias = Callable[[int], dict[str, nn.Module]]
"""Called with the number of features D; returns the fresh heads of a method, by name."""


SHARE = "share"
"""Factor of the learning rate, in the optimizer's groups of weights; without one it is 1."""


class Peer(nn.Module):
    """An encoder with a classifier (trained on noisy labels; it predicts) and a clusterer (trained on neighbors alone).

    One SGD optimizer serves every task, as in the published code; only its learning rate is set anew. A head that
    takes no part in a loss has no gradient, so neither momentum nor weight decay moves it.
    """

    def __init__(
        self, encoder: nn.Module, num_features: int, num_classes: int, *, engine: Engine, momentum: float,
        weight_decay: float, heads: Heads | None = None, encoder_rate: float = 1.0,
    ) -> None:  # fmt: skip
        """Attach fresh linear heads to `encoder`, and the heads that a method adds.

        Args:
            encoder: examples to features (B, num_features).
            num_features: D.
            num_classes: C, also the number of clusters.
            engine: where to compute; the peer is moved to its device.
            momentum: of SGD, 0..1.
            weight_decay: of SGD, on all parameters.
            heads: makes the method's own heads, which are kept in `self.heads` by name.
            encoder_rate: factor of every learning rate for the encoder.
        """
        super().__init__()
        self.engine = engine
        self.encoder = encoder
        self.classifier = nn.Linear(num_features, num_classes)
        self.clusterer = nn.Linear(num_features, num_classes)
        self.heads = nn.ModuleDict(heads(num_features) if heads else {})
        self.to(engine.device)
        self.optimizer = torch.optim.SGD(
            _groups(self, encoder_rate), lr=0.0, momentum=momentum, weight_decay=weight_decay
        )
        self.averages: list[tuple[Peer, float]] = []
        """Peers that are running averages of this one, each with its decay (0..1)."""

    def begin(self, keep_momentum: bool) -> Peer:
        """Begin a task, with the momentum buffers of the task before or without any; return the peer itself."""
        if not keep_momentum:
            self.optimizer.state.clear()
        return self

    def shard(self, batch: Tensor) -> Tensor:
        """Return the rows of a batch of indices that this process trains on. Shape: (B,) -> (B / W,), rounded up."""
        return self.engine.shard(batch)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all W processes, for a loss of the whole batch. Shape: (B, ...) -> (B x W, ...)."""
        return self.engine.all_gather(rows)

    def logits(self, images: Tensor) -> Tensor:
        """Return the classifier's logits for the rows of all W processes. Shape: (B, channels, H, W) -> (B x W, C)."""
        return self.all_gather(self.classifier(self.encoder(images)))

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """Take a step of SGD on the parameters that take part in `loss`, then update the running averages.

        Shape: loss ().
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.engine.backward(loss, self)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get(SHARE, 1.0)
        self.optimizer.step()
        for average, decay in self.averages:
            ema_update(average, self, decay)

    def state(self) -> dict[str, Any]:
        """Return what training goes on from: weights and the optimizer's state (momentum, decay, learning rate)."""
        return {"weights": self.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> Peer:
        """Take over what `state` returned, and return the peer itself.

        Raises:
            KeyError, RuntimeError, ValueError: it is the state of another kind of network.
        """
        self.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        return self


def _groups(peer: Peer, encoder_rate: float) -> Any:
    """Return the weights for the optimizer: in one group, or those of the encoder apart where their rate is another."""
    if encoder_rate == 1.0:
        return peer.parameters()
    encoder = {id(weight) for weight in peer.encoder.parameters()}
    heads = [weight for weight in peer.parameters() if id(weight) not in encoder]
    return [{"params": list(peer.encoder.parameters()), SHARE: encoder_rate}, {"params": heads, SHARE: 1.0}]


def rest_encoders(peers: Sequence[Peer], resting: bool) -> None:
    """Let the encoders of peers rest, or be trained again."""
    for peer in peers:
        cast(Encoder, peer.encoder).rest(resting)
        peer.train(peer.training)


def reset(peer: Peer, fresh: Peer) -> None:
    """Reset a peer in place: to the weights of a fresh peer, without momentum."""
    peer.load_state_dict(fresh.state_dict())
    peer.optimizer.state.clear()


@dataclasses.dataclass
class Networks:
    """State of a method that keeps its networks and, where it divides, p_clean."""

    peers: list[Peer]
    p_clean: Tensor | None = None  # (P, N) of each label


def training_turns(peers: list[Peer]) -> Iterator[int]:
    """Yield the positions of the peers to train: all in turn, or with `parallel="peers"` the one of this process.

    With `parallel="peers"` each process trains its peer as a single process and sees the other as it was before; then
    the processes exchange their peers.
    """
    engine = peers[0].engine
    if engine.world == 1 or engine.parallel == "rows":
        yield from range(len(peers))
        return
    for peer in peers:
        peer.engine = dataclasses.replace(engine, rank=0, world=1)
    yield engine.rank
    for side, peer in enumerate(peers):
        peer.engine = engine
        content = engine.broadcast_bytes(functools.partial(_serialized, peer), by=side)
        if engine.rank != side:
            peer.load_state(torch.load(io.BytesIO(content), map_location=engine.device, weights_only=True))


def _serialized(peer: Peer) -> bytes:
    buffer = io.BytesIO()
    torch.save(peer.state(), buffer)
    return buffer.getvalue()


def turns_with_ema(peers: list[Peer], second: Literal["trained", "average"], decay: float) -> Iterator[int]:
    """Yield the positions of the peers to train: as `training_turns`, or the first alone.

    With `second="average"` the second peer is the running average of the first and is updated after each of its steps.
    """
    first, other = peers
    first.averages = [(other, decay)] if second == "average" else []
    return training_turns(peers) if second == "trained" else iter((0,))


def make_encoder(settings: NetworkSettings, channels: int, engine: Engine, name: str) -> Encoder:
    """Return a new encoder; fresh weights depend on the engine's seed and on `name` alone.

    Raises:
        UserError: the network cannot be made, or the weights that its settings name cannot be loaded.
    """
    with _initialized_by(engine, name):
        return equip(settings.build_first(channels), engine)


def make_peer(
    settings: NetworkSettings,
    data: TrainingData,
    engine: Engine,
    name: str,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    heads: Heads | None = None,
) -> Peer:
    """Return a new peer; fresh weights depend on the engine's seed and on `name` alone.

    Args:
        settings: of the encoder.
        data: its number of channels and of classes.
        engine: where to compute.
        name: of this peer; two peers with different names begin with different weights.
        momentum: of SGD, 0..1.
        weight_decay: of SGD, on all parameters.
        heads: makes the method's own heads.

    Raises:
        UserError: the network cannot be made, or the weights that its settings name cannot be loaded.
    """
    with _initialized_by(engine, name):
        encoder = equip(settings.build_first(data.images.shape[1]), engine)
        return Peer(
            encoder, encoder.num_features, data.num_classes, engine=engine, momentum=momentum,
            weight_decay=weight_decay, heads=heads, encoder_rate=settings.share_of_rate(),
        )  # fmt: skip


@contextmanager
def _initialized_by(engine: Engine, name: str) -> Iterator[None]:
    """Seed the global generator, which layers are initialized from, inside the block; restore it after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(engine.generator("initialize", 0, name).initial_seed())
        yield
