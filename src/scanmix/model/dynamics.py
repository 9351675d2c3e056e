"""How each training example fared while a run went on: what every network said of it, at about twenty points.

Legend: N examples, C classes, P networks, T snapshots.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.divide import noise_rate
from scanmix.data.examples import Examples
from scanmix.files import reading, writing
from scanmix.files.tensors import read_tensors, write_tensors

SNAPSHOTS = 20
"""About so many in a run: enough for a curve, and a sweep in every epoch would cost a fast method a third."""


class Snapshot(NamedTuple):
    """Every example after a number of whole epochs."""

    epoch: int
    losses: Tensor
    """(P, N) cross-entropy of the given label, float16."""
    predictions: Tensor
    """(P, N) likeliest class, int32."""
    p_clean: Tensor | None = None
    """(P, N) what each network believed of each label, float16, where the method asks."""


def is_due(epoch: int, epochs: int) -> bool:
    """Whether a snapshot is taken after `epoch` of `epochs` whole epochs: evenly spread, the last one always."""
    return epoch * SNAPSHOTS // epochs > (epoch - 1) * SNAPSHOTS // epochs


def take_snapshot(logits: Tensor, labels: Tensor, epoch: int, p_clean: Tensor | None) -> Snapshot:
    """Keep what every network said of every example, in plain view.

    `p_clean` is what the method held of each label in that epoch, if it asks. Shape: (P, N, C), (N,), (P, N).
    """
    labels = labels.cpu().expand(len(logits), -1)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    beliefs = None if p_clean is None else p_clean.cpu().half()
    return Snapshot(epoch, losses.half(), logits.argmax(2).int(), beliefs)


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Keep a snapshot in `folder`/trajectory, a file of its own."""
    with writing(folder / "trajectory"):
        (folder / "trajectory").mkdir(exist_ok=True)
    tensors = {"losses": snapshot.losses, "predictions": snapshot.predictions}
    tensors |= {} if snapshot.p_clean is None else {"p_clean": snapshot.p_clean}
    write_tensors(folder / "trajectory" / f"{snapshot.epoch:05d}.safetensors", tensors)


def load_dynamics(folder: Path, epochs: int) -> list[Snapshot]:
    """Read the snapshots of the first `epochs` epochs, in order; none where none were kept.

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
    """All snapshots of a run are of the same networks and examples.

    Raises:
        ValueError: this one is not.
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
    """Measure what the peers call clean: size (mean over peers), estimated noise, true purity where known.

    What is no number was not asked about. Shape: p_clean (P, N).
    """
    judged = p_clean[:, p_clean.isfinite().all(0)]
    clean = (p_clean > threshold).cpu()
    line = {"estimated_noise": noise_rate(judged, threshold), "clean_size": clean.sum(1).double().mean().item()}
    if examples.true_labels is not None and bool(clean.any()):
        right = (examples.true_labels == examples.labels).cpu()
        line["clean_purity"] = int((clean & right).sum()) / int(clean.sum())
    return line
