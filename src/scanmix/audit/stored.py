"""Evidence on disk: written when a run ends, so that an audit needs neither the networks nor the images.

Files are safetensors and JSON; nothing is unpickled. Legend: N examples, C classes, P networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scanmix.audit.evidence import Evidence
from scanmix.data.examples import DECIDED, NO_VOTE, NOT_KNOWN, OPEN_SET, Excluded
from scanmix.files import parse_json, reading, write_json, writing
from scanmix.files.tensors import read_tensors, write_tensors

TENSORS = (
    "labels", "true_labels", "probs", "predictions", "neighbors", "similarity", "components", "image_neighbors",
    "pictures", "decided", "before", "votes",
)  # fmt: skip
"""Fields of `Evidence` that are stored as tensors. Whole numbers take 32 bits on disk and 64 in memory."""


def save_evidence(folder: Path, evidence: Evidence) -> None:
    """Write evidence to `folder`/evidence, without snapshots, which the run keeps in `trajectory`.

    The files take about 64 + 2 C bytes for each of N examples, names not counted.

    Raises:
        CannotWrite: a file cannot be written.
    """
    folder = folder / "evidence"
    with writing(folder):
        folder.mkdir(exist_ok=True)
    found = {name: tensor for name in TENSORS if (tensor := getattr(evidence, name)) is not None}
    tensors = {name: tensor.int() if tensor.dtype == torch.int64 else tensor for name, tensor in found.items()}
    names: dict[str, Any] = {"class_names": evidence.class_names, "ids": evidence.ids, "paths": evidence.paths}
    names |= {"excluded": evidence.excluded} if evidence.excluded else {}
    names |= {"annotators": evidence.annotators} if evidence.annotators else {}
    write_tensors(folder / "evidence.safetensors", tensors)
    write_json(folder / "evidence.json", names)


def has_evidence(folder: Path) -> bool:
    """Return whether a run folder holds evidence; folders of older versions do not."""
    return (folder / "evidence").exists()


def load_evidence(folder: Path) -> Evidence:
    """Read what `save_evidence` wrote.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = folder / "evidence"
    fix = f"delete {folder}, and labels are judged from the images again, if all are there"
    with reading(folder / "evidence.json", fix):
        content = parse_json((folder / "evidence.json").read_text(encoding="utf-8"))
        names = {key: _texts(content, key) for key in ("class_names", "ids")}
        paths = None if content["paths"] is None else _texts(content, "paths")
        excluded = _excluded(content.get("excluded", []))
        annotators = _texts({"annotators": [], **content}, "annotators")
    path = folder / "evidence.safetensors"
    found = read_tensors(path, fix)
    with reading(path, fix):
        tensors = {name: tensor.long() if tensor.dtype == torch.int32 else tensor for name, tensor in found.items()}
        evidence = Evidence(
            labels=tensors["labels"],
            probs=tensors["probs"],
            predictions=tensors["predictions"],
            class_names=names["class_names"],
            ids=names["ids"],
            paths=paths,
            true_labels=tensors.get("true_labels"),
            neighbors=tensors.get("neighbors"),
            similarity=tensors.get("similarity"),
            components=tensors.get("components"),
            image_neighbors=tensors.get("image_neighbors"),
            pictures=tensors.get("pictures"),
            decided=tensors.get("decided"),
            before=tensors.get("before"),
            excluded=excluded,
            votes=tensors.get("votes"),
            annotators=annotators,
        )
        _check(evidence)
    return evidence


def _texts(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the texts under a key. They may hold bytes that are not UTF-8, which pydantic refuses.

    Raises:
        KeyError, TypeError, ValueError: there are no texts under that key.
    """
    if not all(isinstance(text, str) for text in content[key]):
        raise ValueError(f"{key} that are no texts")
    return tuple(content[key])


def _excluded(rows: Any) -> tuple[Excluded, ...]:
    """Return id, path and given label of each example that a person left out.

    Raises:
        TypeError, ValueError: `rows` holds something else.
    """
    if not all(isinstance(text, str) for row in rows for text in row):
        raise ValueError("excluded examples that are no texts")
    return tuple((name, path, given) for name, path, given in rows)


def _check(evidence: Evidence) -> None:
    """Check that tensors and names describe the same examples and point at examples and classes that exist.

    Raises:
        ValueError: they do not.
    """
    count, classes = len(evidence.ids), len(evidence.class_names)
    if len(set(evidence.ids)) < count or len(set(evidence.class_names)) < classes:
        raise ValueError("a name stands twice")
    if evidence.paths is not None and len(evidence.paths) != count:
        raise ValueError(f"{count} ids and {len(evidence.paths)} paths")
    below = {"labels": classes, "true_labels": classes, "predictions": classes, "neighbors": count, "pictures": count}
    below |= {"decided": len(DECIDED), "before": classes, "votes": classes, "image_neighbors": count}
    for name in TENSORS:
        tensor = getattr(evidence, name)
        if tensor is None:
            continue
        pairs = {
            "probs": (count, classes), "predictions": (tensor.shape[0], count), "neighbors": (count, tensor.shape[-1]),
            "components": (count, tensor.shape[-1]), "image_neighbors": (count, tensor.shape[-1]),
            "votes": (count, len(evidence.annotators)),
        }  # fmt: skip
        if tuple(tensor.shape) != pairs.get(name, (count,)):
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} for {count} ids of {classes} classes")
        if tensor.is_floating_point() == (name in below):
            raise ValueError(f"{name} of {tensor.dtype}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} that are no numbers")
        least = {"true_labels": OPEN_SET, "before": NOT_KNOWN, "votes": NO_VOTE}.get(name, 0)
        if name in below and tensor.numel() and not least <= int(tensor.min()) <= int(tensor.max()) < below[name]:
            raise ValueError(f"{name} outside of {least}..{below[name] - 1}")
