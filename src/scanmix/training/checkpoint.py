"""The checkpoint that training goes on from.

Nothing here is ever unpickled: `torch.load(weights_only=True)` only. A file is written under another name and renamed
when it is whole, and the checkpoint before it is kept.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Diverged
from scanmix.files import reading, writing
from scanmix.files.tensors import read_state, write_state
from scanmix.methods import State
from scanmix.networks.peer import Peer

AnyState = TypeVar("AnyState")
Payload = dict[str, Any]

CHECKPOINTS = ("last.pt", "before.pt")
"""The state after the last epoch, and that of one epoch before."""
PLAIN = (Tensor, bool, int, float, type(None))
"""Types of fields that are stored as they are."""


def pack(state: Any) -> Payload:
    """Turn a method's state into what `torch.save` writes and `weights_only` reads again.

    A peer becomes its weights and its optimizer's state; tensors, numbers and None stay what they are.

    Raises:
        TypeError: a field holds anything else.
    """
    payload: Payload = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if isinstance(value, list) and all(isinstance(peer, Peer) for peer in value):
            value = [peer.state() for peer in value]
        elif not isinstance(value, PLAIN):
            raise TypeError(f"{type(state).__name__}.{field.name}: a {type(value).__name__} cannot be saved")
        payload[field.name] = value
    return payload


def unpack(state_class: type[AnyState], payload: Payload, make_peer: Callable[[], Peer]) -> AnyState:
    """Rebuild the state that `pack` was given; `make_peer` returns a peer of the right shape to load into.

    Momentum, weight decay and learning rate come back with the optimizer's state.

    Raises:
        UserError: the payload is of another method or network.
    """
    fields = dict(payload)
    try:
        for name, value in payload.items():
            if isinstance(value, list):
                fields[name] = [make_peer().load_state(saved) for saved in value]
        return state_class(**fields)
    except Exception as error:  # networks and optimizers raise whatever they like on what is not theirs
        raise UserError(
            f"the checkpoint does not hold what the method needs ({type(error).__name__}: {error}); train in another "
            "folder"
        ) from error


def save_checkpoint(folder: Path, config_hash: str, epoch: int, state: Any) -> None:
    """Save the state after `epoch` whole epochs; the one before it stays, in case this one is damaged.

    `identity` is the config hash: of the resolved settings and of the data.

    Raises:
        CannotWrite: the disk is full, or may not be written to; the last state that was saved is there still.
    """
    last, before = (folder / "checkpoint" / name for name in CHECKPOINTS)
    with writing(last):
        last.parent.mkdir(exist_ok=True)
        if last.exists():
            last.replace(before)
    write_state(last, {"identity": config_hash, "epoch": epoch, "state": pack(state)})


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return any((folder / "checkpoint" / name).exists() for name in CHECKPOINTS)


def load_checkpoint(folder: Path, config_hash: str, device: torch.device) -> tuple[int, Payload] | None:
    """Return (whole epochs, packed state) on `device`, or None where there is no checkpoint yet.

    If the last one is damaged, the one before it is taken, with a warning.

    Raises:
        UserError: every checkpoint is damaged, or one was written with other settings or other data.
    """
    damage: UserError | None = None
    for path in (folder / "checkpoint" / name for name in CHECKPOINTS):
        if not path.exists():
            continue
        try:
            content = read_state(path, device)
            with reading(path):
                found, epoch, state = content["identity"], content["epoch"], dict(content["state"])
                if not isinstance(epoch, int) or epoch < 0:
                    raise ValueError(f"epoch {epoch!r}")
        except UserError as error:
            damage = damage or error
            continue
        if found != config_hash:
            raise UserError(
                f"{path} belongs to other settings or other data than {folder}/run.toml; choose another folder"
            )
        if damage is not None:
            warnings.warn(f"{damage}; the training goes on from the one before, epoch {epoch}", stacklevel=2)
        return epoch, state
    if damage is not None:
        raise UserError(f"{damage}; delete the folder {folder} and train again")
    return None


def share_checkpoint(saved: tuple[int, Payload] | None, engine: Engine) -> tuple[int, Payload] | None:
    """Return in every process the (whole epochs, packed state) that the first has loaded, or None."""
    if engine.world == 1:
        return saved
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    content = io.BytesIO(engine.broadcast_bytes(buffer.getvalue))
    shared: tuple[int, Payload] | None = torch.load(content, map_location=engine.device, weights_only=True)
    return shared


def check_weights(state: State, engine: Engine) -> None:
    """Refuse to go on, and so to save, where weights are NaN or infinite, or differ between processes.

    The last step of an epoch may leave such weights, which only the next loss would show.

    Raises:
        Diverged: some are no longer numbers.
    """
    for peer in state.peers:
        engine.check_equal(peer)
        for name, weight in peer.named_parameters():
            if not bool(weight.isfinite().all()):  # one device synchronization for each tensor, once an epoch
                raise Diverged(f"the weights {name} are no longer numbers; lower the learning rate")
