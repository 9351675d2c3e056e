"""Evidence on disk: what an audit needs is kept when a run ends, and outlives the images it was made from.

Nothing here is ever unpickled: safetensors and JSON. Legend: N examples, C classes, P networks.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from scanmix.audit.evidence import Evidence
from scanmix.config import UserError
from scanmix.data.examples import DECIDED, FOREIGN
from scanmix.files import write_aside, write_text

TENSORS = ("labels", "true_labels", "probs", "predictions", "neighbors", "similarity", "pictures", "decided")
"""Whole numbers take 32 bits on the disk and 64 in memory."""


def save_evidence(folder: Path, evidence: Evidence) -> None:
    """Write evidence to `folder`/evidence, but for what the run keeps elsewhere: snapshots, and what follows from them.

    About 64 + 2 C bytes for each of N examples, their names not counted.
    """
    folder = folder / "evidence"
    folder.mkdir(exist_ok=True)
    found = {name: tensor for name in TENSORS if (tensor := getattr(evidence, name)) is not None}
    tensors = {name: tensor.int() if tensor.dtype == torch.int64 else tensor for name, tensor in found.items()}
    names: dict[str, object] = {"class_names": evidence.class_names, "ids": evidence.ids, "paths": evidence.paths}
    names |= {"excluded": evidence.excluded} if evidence.excluded else {}
    write_aside(folder / "evidence.safetensors", lambda aside: save_file(tensors, aside))
    text = json.dumps(names) + "\n"
    write_text(folder / "evidence.json", text)


def has_evidence(folder: Path) -> bool:
    """Whether evidence was kept in a run folder; older ones have none."""
    return (folder / "evidence").exists()


def load_evidence(folder: Path) -> Evidence:
    """Read what `save_evidence` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = folder / "evidence"
    try:
        names = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
        found = load_file(folder / "evidence.safetensors")
        tensors = {name: tensor.long() if tensor.dtype == torch.int32 else tensor for name, tensor in found.items()}
        evidence = Evidence(
            labels=tensors["labels"],
            probs=tensors["probs"],
            predictions=tensors["predictions"],
            class_names=tuple(names["class_names"]),
            ids=tuple(names["ids"]),
            paths=None if names["paths"] is None else tuple(names["paths"]),
            true_labels=tensors.get("true_labels"),
            neighbors=tensors.get("neighbors"),
            similarity=tensors.get("similarity"),
            pictures=tensors.get("pictures"),
            decided=tensors.get("decided"),
            excluded=tuple((str(name), str(path), str(given)) for name, path, given in names.get("excluded", ())),
        )
        _check(evidence)
    except (LookupError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise UserError(
            f"{folder} is damaged ({error}); delete it, and labels are judged from the images again, if all are there"
        ) from None
    return evidence


def _check(evidence: Evidence) -> None:
    """Numbers and names must be of the same examples, and point at examples and classes that exist.

    Raises:
        ValueError: they do not.
    """
    count, classes = len(evidence.ids), len(evidence.class_names)
    if evidence.paths is not None and len(evidence.paths) != count:
        raise ValueError(f"{count} ids and {len(evidence.paths)} paths")
    below = {"labels": classes, "true_labels": classes, "predictions": classes, "neighbors": count, "pictures": count}
    below["decided"] = len(DECIDED)
    for name in TENSORS:
        tensor = getattr(evidence, name)
        if tensor is None:
            continue
        pairs = {
            "probs": (count, classes), "predictions": (tensor.shape[0], count), "neighbors": (count, tensor.shape[-1]),
        }  # fmt: skip
        if tuple(tensor.shape) != pairs.get(name, (count,)):
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} for {count} ids of {classes} classes")
        least = FOREIGN if name == "true_labels" else 0
        if name in below and tensor.numel() and not least <= int(tensor.min()) <= int(tensor.max()) < below[name]:
            raise ValueError(f"{name} outside of {least}..{below[name] - 1}")
