"""Evidence from arrays, for people who trained elsewhere. Legend: N examples, C classes, D features, P networks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from scanmix.audit.evidence import Evidence, neighborhood
from scanmix.config import UserError, texts
from scanmix.data.readers.folder import sort_names
from scanmix.files.cells import MISSING, one_name, without_point
from scanmix.files.npy import CHUNK

SUM_WITHIN = 1e-3
"""How far the sum of a row of probabilities may be from 1."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)


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
        class_names: C names; without them 0..C-1, or the names among `labels`, sorted as numbers where all of them
            are whole numbers, else as text.
        ids: N unique names of the examples; 0..N-1 when not given.

    Raises:
        UserError: shapes, ranges or names do not fit together, or a row holds what it cannot; names the first one.
    """
    given = _checked_labels(np.asarray(labels))
    shares = _checked_probs(np.asarray(probs), len(given))
    count = len(given)
    names = _class_names(given, shares, None if class_names is None else texts("class_names", class_names))
    numbers = _numbered(given, names)
    called = texts("ids", ids) if ids is not None else tuple(str(i) for i in range(count))
    if len(called) != count or len(set(called)) != count:
        raise UserError(f"{count} different ids are needed, and {len(set(called))} were given")
    neighbors, similarity = (None, None)
    if features is not None:
        neighbors, similarity = neighborhood(torch.from_numpy(_checked_features(np.asarray(features), count)))
    said = torch.from_numpy(shares)
    return Evidence(
        labels=torch.from_numpy(numbers),
        probs=said.mean(0),
        predictions=said.argmax(2),
        class_names=names,
        ids=called,
        neighbors=neighbors,
        similarity=similarity,
    )


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as texts or as int64. Shape: (N,) -> (N,)."""
    if labels.ndim != 1:
        raise UserError(f"labels must be one column, not of shape {labels.shape}")
    kind = labels.dtype.kind
    if kind == "O":  # of a data frame, say
        labels = _plain_labels(labels)
        kind = labels.dtype.kind
    if kind == "S":
        labels = np.array([label.decode("utf-8", "replace") for label in labels.tolist()], dtype=str)
    if kind in "US":
        missing = [row for row, label in enumerate(labels.tolist()) if not label.strip() or label in MISSING]
        if missing:
            raise _at("labels", missing, len(labels), f"{str(labels[missing[0]])!r}, which stands for a missing label")
        return np.array(labels.tolist(), dtype=str)
    if kind == "f":
        odd = np.flatnonzero(~np.isfinite(labels) | (labels != np.round(labels)))
        if len(odd):
            raise _at("labels", odd, len(labels), f"{labels[odd[0]]}, which is no whole number")
        odd = np.flatnonzero(np.abs(labels) > 2**53)
        if len(odd):
            raise _at("labels", odd, len(labels), f"{labels[odd[0]]}, which is no class")
    elif kind not in "iu":
        raise UserError(f"labels must be class names or whole numbers, not {labels.dtype}")
    elif kind == "u" and len(labels) and labels.max() > np.iinfo(np.int64).max:
        raise _at("labels", [int(labels.argmax())], len(labels), f"{labels.max()}, which is no class")
    return labels.astype(np.int64)


def _plain_labels(labels: np.ndarray) -> np.ndarray:
    """Labels of any Python objects as an array of one kind."""
    odd = [row for row, label in enumerate(labels.tolist()) if not isinstance(label, str | int | float | np.generic)]
    if odd:
        raise _at("labels", odd, len(labels), f"{labels[odd[0]]!r}, which is neither a name nor a number")
    texts = [isinstance(label, str) for label in labels.tolist()]
    if any(texts) and not all(texts):
        row = texts.index(not texts[0])
        raise _at("labels", [row], len(labels), f"{labels[row]!r}; the rows above hold the other of name and number")
    return np.array(labels.tolist())


def _checked_probs(probs: np.ndarray, count: int) -> np.ndarray:
    """Shape: (N, C) or (P, N, C) -> (P, N, C) float32."""
    shares = probs[None] if probs.ndim == 2 else probs
    if shares.ndim != 3 or shares.shape[1] != count or 0 in shares.shape or shares.shape[2] < 2 or count < 2:
        raise UserError(f"probs must be of shape (N, C) or (P, N, C) for N = {count} labels, not {probs.shape}")
    if shares.dtype.kind != "f":
        raise UserError(
            f"probs must be finite numbers of at least 0 with a point, not {shares.dtype}; take the softmax of logits "
            "first"
        )
    for start in range(0, count, CHUNK):
        part = shares[:, start : start + CHUNK].astype(np.float64)
        odd = np.flatnonzero((~np.isfinite(part) | (part < 0)).any((0, 2)))
        if len(odd):
            row = int(odd[0])
            first = next(value for value in part[:, row].flat if not (np.isfinite(value) and value >= 0))
            raise UserError(
                f"probs must be finite numbers of at least 0; row {start + row} holds {first:g}; take the softmax of "
                "logits first"
            )
        off = np.abs(part.sum(2) - 1).max(0)
        if off.max() > SUM_WITHIN:
            row = int(np.flatnonzero(off > SUM_WITHIN)[0])
            raise UserError(f"each row of probs must sum to 1; row {start + row} does not")
    return shares.astype(np.float32)


def _checked_features(features: np.ndarray, count: int) -> np.ndarray:
    """Shape: (N, D) -> (N, D) float32."""
    if features.ndim != 2 or len(features) != count or 0 in features.shape or features.dtype.kind not in "fiu":
        raise UserError(f"features must be numbers of shape ({count}, D), not {features.dtype} {features.shape}")
    with np.errstate(over="ignore"):
        found = features.astype(np.float32)
        # Neighbors are those of the smallest angle: a row whose length float32 cannot hold has none.
        length = np.concatenate([np.square(found[i : i + CHUNK]).sum(1) for i in range(0, count, CHUNK)])
    odd = np.flatnonzero(~np.isfinite(length))
    if len(odd):
        raise _at("features", odd, count, "a number that is missing, infinite or too large; repair or scale them")
    return found


def _class_names(labels: np.ndarray, shares: np.ndarray, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the columns: those given, or what the labels say."""
    classes, is_text = shares.shape[2], labels.dtype.kind == "U"
    if asked is not None:
        names = tuple(str(name) for name in asked)
    elif is_text:
        names = sort_names(set(one_name(labels.tolist())))
    else:
        names = tuple(str(c) for c in range(classes))
    if len(names) != classes:
        hint = (
            ""
            if asked is not None
            else "; name the classes of all columns in their order with --classes (class_names=)"
        )
        raise UserError(f"there are {len(names)} class names for {classes} columns of probabilities{hint}")
    if len(set(names)) < classes or "" in names:
        raise UserError(f"class names must be {classes} different ones and none empty, not {', '.join(names)}")
    if asked is None and is_text:
        _check_order(labels, shares, names)
    return names


def _check_order(labels: np.ndarray, shares: np.ndarray, names: tuple[str, ...]) -> None:
    """Refuse to guess where numbers as text fit better in another order: some programs sort `10` before `2`."""
    if not all(NUMBER.fullmatch(name) for name in names):
        return
    fit = _mean_share(_numbered(labels, names), shares)
    for order in (tuple(sorted(names)), tuple(sorted(names, key=float))):
        if order != names and _mean_share(_numbered(labels, order), shares) > fit:
            raise UserError(
                f"the columns of probs do not seem to stand in the order {', '.join(names)}: name the classes in the "
                "order of the columns with --classes (class_names=)"
            )


def _mean_share(numbers: np.ndarray, shares: np.ndarray) -> float:
    """What the networks hold of the labels. Shape: (N,), (P, N, C) -> a number."""
    return float(shares[:, np.arange(len(numbers)), numbers].mean())


def _numbered(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Shape: (N,) names or numbers -> (N,) int64 in 0..C-1."""
    if labels.dtype.kind == "U":
        place = {without_point(name): c for c, name in enumerate(class_names)}
        place |= {name: c for c, name in enumerate(class_names)}
        numbers = [place.get(label, place.get(without_point(label), -1)) for label in labels.tolist()]
        if -1 in numbers:
            row = numbers.index(-1)
            raise UserError(f"row {row}: label {str(labels[row])!r} is none of the classes {', '.join(class_names)}")
        return np.array(numbers, dtype=np.int64)
    odd = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(odd):
        raise UserError(
            f"labels must be class names or whole numbers 0..{len(class_names) - 1}; row {odd[0]} holds "
            f"{labels[odd[0]]} ({len(odd)} such of {len(labels)})"
        )
    return labels


def _at(what: str, rows: Sequence[int] | np.ndarray, count: int, held: str) -> UserError:
    """The error for rows that hold what they cannot; the caller raises it."""
    return UserError(f"row {rows[0]} of {what} holds {held} ({len(rows)} such of {count})")
