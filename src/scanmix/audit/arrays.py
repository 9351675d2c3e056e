"""Evidence from arrays, for people who trained elsewhere. Legend: N examples, C classes, D features, P networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from scanmix.audit.evidence import Evidence, neighborhood
from scanmix.config import UserError


def evidence_from_arrays(
    labels: np.ndarray,
    probs: np.ndarray,
    features: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
) -> Evidence:
    """Make evidence of given labels and of what a model said of each example.

    Args:
        labels: (N,) whole numbers 0..C-1, or class names.
        probs: (N, C) class probabilities, or (P, N, C) of several networks; best out of sample: a model that
            learned the labels says too much for them. Columns in the order of `class_names`.
        features: (N, D), any representation in which alike images are close; their neighbors vote.
        class_names: C names; without them the sorted names among `labels`, or 0..C-1.
        ids: N unique names of the examples; 0..N-1 when not given.

    Raises:
        UserError: shapes, ranges or names do not fit together.
    """
    shares = _checked_probs(probs, len(labels))
    count, classes = shares.shape[1:]
    is_text = labels.dtype.kind in "US"
    if class_names is None:
        class_names = sorted(set(labels.tolist())) if is_text else [str(c) for c in range(classes)]
    if len(class_names) != classes:
        raise UserError(f"there are {len(class_names)} class names for {classes} columns of probabilities")
    if features is not None and (features.ndim != 2 or len(features) != count or features.dtype.kind not in "fiu"):
        raise UserError(f"features must be numbers of shape ({count}, D), not {features.dtype} {features.shape}")
    names = tuple(ids) if ids is not None else tuple(str(i) for i in range(count))
    if len(names) != count or len(set(names)) != count:
        raise UserError(f"{count} different ids are needed, and {len(set(names))} were given")
    neighbors, similarity = (None, None)
    if features is not None:
        neighbors, similarity = neighborhood(torch.from_numpy(features.astype(np.float32)))
    said = torch.from_numpy(shares)
    return Evidence(
        labels=torch.from_numpy(_numbered(labels, class_names)),
        probs=said.mean(0),
        predictions=said.argmax(2),
        class_names=tuple(class_names),
        ids=names,
        neighbors=neighbors,
        similarity=similarity,
    )


def _checked_probs(probs: np.ndarray, count: int) -> np.ndarray:
    """Shape: (N, C) or (P, N, C) -> (P, N, C) float32."""
    shares = probs[None] if probs.ndim == 2 else probs
    if shares.ndim != 3 or shares.shape[1] != count or shares.shape[2] < 2 or count < 2:
        raise UserError(f"probs must be of shape (N, C) or (P, N, C) for N = {count} labels, not {probs.shape}")
    if shares.dtype.kind != "f" or not np.isfinite(shares).all() or shares.min() < 0:
        raise UserError("probs must be finite numbers of at least 0; take the softmax of logits first")
    if np.abs(shares.sum(2) - 1).max() > 1e-3:
        worst = int(np.abs(shares.sum(2) - 1).max(0).argmax())
        raise UserError(f"each row of probs must sum to 1; row {worst} does not")
    return shares.astype(np.float32)


def _numbered(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Shape: (N,) names or numbers -> (N,) int64 in 0..C-1."""
    if labels.ndim != 1:
        raise UserError(f"labels must be one column, not of shape {labels.shape}")
    if labels.dtype.kind in "US":
        place = {name: c for c, name in enumerate(class_names)}
        unknown = sorted({str(label) for label in labels.tolist()} - set(place))
        if unknown:
            raise UserError(f"label {unknown[0]!r} is none of the classes {', '.join(class_names)}")
        return np.array([place[label] for label in labels.tolist()], dtype=np.int64)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(f"labels must be class names or whole numbers 0..{len(class_names) - 1}")
    return labels.astype(np.int64)
