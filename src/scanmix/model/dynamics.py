"""Training dynamics: loss and prediction of every network for each training example, at about twenty epochs of a run.

Legend: N examples, C classes, P networks, T snapshots.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.divide import noise_rate
from scanmix.data.examples import Examples
from scanmix.files import reading, writing
from scanmix.files.tensors import read_tensors, write_tensors

SNAPSHOTS = 20
"""About so many in a run: enough for a curve. A pass over all examples in each epoch would take a fast method a third
more time."""


class Snapshot(NamedTuple):
    """Losses and predictions of all examples after a number of whole epochs."""

    epoch: int
    losses: Tensor
    """(P, N) cross-entropy of the given label, float16; at most 65504, its largest number."""
    predictions: Tensor
    """(P, N) likeliest class, int32."""
    p_clean: Tensor | None = None
    """(P, N) what each network held of each label, float16; None if the method does not divide."""


def is_due(epoch: int, epochs: int) -> bool:
    """Whether a snapshot is taken after `epoch` of `epochs` whole epochs: evenly spread, the last one always."""
    return epoch * SNAPSHOTS // epochs > (epoch - 1) * SNAPSHOTS // epochs


def take_snapshot(logits: Tensor, labels: Tensor, epoch: int, p_clean: Tensor | None) -> Snapshot:
    """Return losses and predictions from logits of the center views.

    `p_clean` is what the method held of each label in that epoch, None if it does not divide.
    Shape: logits (P, N, C), labels (N,), p_clean (P, N).
    """
    labels = labels.cpu().expand(len(logits), -1)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    stored = None if p_clean is None else p_clean.cpu().half()
    # A loss that is not bounded from below (`backward`) may drive a logit beyond the largest float16.
    losses = losses.clamp(max=torch.finfo(torch.float16).max)
    return Snapshot(epoch, losses.half(), logits.argmax(2).int(), stored)


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot to a file of its own in `folder`/trajectory: 8 bytes of each network and example at most.

    Raises:
        CannotWrite: the disk is full, or may not be written to.
    """
    with writing(folder / "trajectory"):
        (folder / "trajectory").mkdir(exist_ok=True)
    tensors = {"losses": snapshot.losses, "predictions": snapshot.predictions}
    tensors |= {} if snapshot.p_clean is None else {"p_clean": snapshot.p_clean}
    write_tensors(folder / "trajectory" / f"{snapshot.epoch:05d}.safetensors", tensors)


def load_dynamics(folder: Path, epochs: int) -> list[Snapshot]:
    """Read the snapshots of the first `epochs` epochs, in order; an empty list if there are none.

    Raises:
        UserError: a file is damaged.
    """
    found: list[Snapshot] = []
    for path in sorted((folder / "trajectory").glob("*.safetensors")):
        fix = "delete it, and that epoch is missing from the curves"
        tensors = read_tensors(path, fix)
        with reading(path, fix):
            snapshot = Snapshot(int(path.stem), tensors["losses"], tensors["predictions"], tensors.get("p_clean"))
            _check(snapshot, found[0] if found else snapshot)
        if snapshot.epoch <= epochs:
            found.append(snapshot)
    return found


def _check(snapshot: Snapshot, first: Snapshot) -> None:
    """Refuse a snapshot that is not of the networks and examples of the first one.

    Raises:
        ValueError: its shape or its type is another.
    """
    for name in ("losses", "predictions", "p_clean"):
        tensor = getattr(snapshot, name)
        if tensor is None:
            continue
        if tensor.ndim != 2 or tensor.shape != first.losses.shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}, not {tuple(first.losses.shape)}")
        if tensor.is_floating_point() == (name == "predictions"):
            raise ValueError(f"{name} of {tensor.dtype}")


def clean_set_metrics(p_clean: Tensor, threshold: float, examples: Examples) -> dict[str, float]:
    """Measure the clean set: its size (mean over peers), estimated noise rate (0..1), and purity if truth is known.

    Examples whose p_clean is NaN were not in the epoch, and are left out. Shape: p_clean (P, N).
    """
    divided = p_clean[:, p_clean.isfinite().all(0)]
    clean = (p_clean > threshold).cpu()
    line = {"estimated_noise": noise_rate(divided, threshold), "clean_size": clean.sum(1).double().mean().item()}
    if examples.true_labels is not None and bool(clean.any()):
        right = (examples.true_labels == examples.labels).cpu()
        line["clean_purity"] = int((clean & right).sum()) / int(clean.sum())
    return line
