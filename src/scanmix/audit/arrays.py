"""Evidence from arrays, for models that were trained elsewhere.

Legend: N examples, C classes, D features, P networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from scanmix.audit.evidence import Evidence, check_comparable, checked_prior, components_of, neighborhood
from scanmix.config import UserError, texts
from scanmix.data.checks import check_mask
from scanmix.data.examples import DECIDED, TRUSTED
from scanmix.data.readers.folder import sort_names
from scanmix.files.cells import MISSING, one_name, without_point
from scanmix.files.npy import CHUNK

SUM_WITHIN = 1e-3
"""How far the sum of a row of probabilities may be from 1."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)


def evidence_from_arrays(
    labels: np.ndarray,
    probs: np.ndarray | None = None,
    features: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    class_prior: Mapping[str, float] | None = None,
    trusted: Sequence[bool] | np.ndarray | None = None,
) -> Evidence:
    """Return evidence made of given labels and a model's class probabilities, or features, or both.

    Args:
        labels: (N,) whole numbers 0..C-1, or class names.
        probs: (N, C) class probabilities, or (P, N, C) of several networks; columns in the order of `class_names`.
            They must come from models that were not trained on the label that they judge, as in cross-validation: one
            that was is too sure of it, and its errors pass for wrong labels or the reverse.
        features: (N, D), any representation in which similar images lie close together and that was not learned from
            these labels; nearest neighbors and a linear classifier on it judge each label.
        class_names: C names; without them 0..C-1, or the names among `labels`, sorted as numbers where all of them
            are whole numbers, else as text.
        ids: N unique names of the examples; 0..N-1 when not given.
        class_prior: share of each true class by its name, where it is known; else that of `probs`, or without them the
            likeliest, is taken.
        trusted: (N,) bool, labels that are known to be right.

    Raises:
        UserError: shapes, ranges or names do not fit together, or a value is not allowed; names the first such row.
            Without `probs`, also where all labels are of one class.
    """
    if probs is None and features is None:
        raise UserError("labels alone tell nothing: give probabilities (probs), features, or both")
    given = _checked_labels(np.asarray(labels))
    checked = None if probs is None else _checked_probs(np.asarray(probs), len(given))
    count = len(given)
    if checked is None and class_names is None:
        given = given.astype(str)  # the numbers that occur are the classes
    names = _class_names(given, checked, None if class_names is None else texts("class_names", class_names))
    numbers = _numbered(given, names)
    if checked is None:
        check_comparable(torch.from_numpy(numbers), names)
    example_ids = _checked_ids(ids, count)
    neighbors, similarity, components = (None, None, None)
    if features is not None:
        rows = torch.from_numpy(checked_features(np.asarray(features), count))
        (neighbors, similarity), components = neighborhood(rows), components_of(rows)
    probabilities = None if checked is None else torch.from_numpy(checked)
    return Evidence(
        labels=torch.from_numpy(numbers),
        probs=None if probabilities is None else probabilities.mean(0),
        predictions=None if probabilities is None else probabilities.argmax(2),
        held_out=True,
        class_names=names,
        ids=example_ids,
        neighbors=neighbors,
        similarity=similarity,
        components=components,
        class_prior=None if class_prior is None else checked_prior(class_prior, names),
        decided=None if trusted is None else _decided(trusted, count),
    )


def _checked_ids(ids: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return N different ids, the positions where none are given."""
    found = texts("ids", ids) if ids is not None else tuple(str(i) for i in range(count))
    if len(found) != count or len(set(found)) != count:
        raise UserError(f"{count} different ids are needed, and {len(set(found))} were given")
    return found


def _decided(trusted: Sequence[bool] | np.ndarray, count: int) -> Tensor | None:
    """Return labels that are known to be right as `Evidence.decided`. Shape: -> (N,) int8, None if there are none."""
    known = check_mask(trusted, count, "trusted labels")
    return known.to(torch.int8) * DECIDED.index(TRUSTED) if bool(known.any()) else None


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels as texts or as int64. Shape: (N,) -> (N,)."""
    if labels.ndim != 1:
        raise UserError(f"labels must be one column, not of shape {labels.shape}")
    kind = labels.dtype.kind
    if kind == "O":  # as from a data frame
        labels = _plain_labels(labels)
        kind = labels.dtype.kind
    if kind == "S":
        labels = np.array([label.decode("utf-8", "replace") for label in labels.tolist()], dtype=str)
    if kind in "US":
        missing = [row for row, label in enumerate(labels.tolist()) if not label.strip() or label in MISSING]
        if missing:
            raise _bad_row(
                "labels", missing, len(labels), f"{str(labels[missing[0]])!r}, which stands for a missing label"
            )
        return np.array(labels.tolist(), dtype=str)
    if kind == "f":
        odd = np.flatnonzero(~np.isfinite(labels) | (labels != np.round(labels)))
        if len(odd):
            raise _bad_row("labels", odd, len(labels), f"{labels[odd[0]]}, which is no whole number")
        odd = np.flatnonzero(np.abs(labels) > 2**53)
        if len(odd):
            raise _bad_row("labels", odd, len(labels), f"{labels[odd[0]]}, which is no class")
    elif kind not in "iu":
        raise UserError(f"labels must be class names or whole numbers, not {labels.dtype}")
    elif kind == "u" and len(labels) and labels.max() > np.iinfo(np.int64).max:
        raise _bad_row("labels", [int(labels.argmax())], len(labels), f"{labels.max()}, which is no class")
    return labels.astype(np.int64)


def _plain_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels that are Python objects as an array of one type. Shape: (N,) -> (N,)."""
    odd = [row for row, label in enumerate(labels.tolist()) if not isinstance(label, str | int | float | np.generic)]
    if odd:
        raise _bad_row("labels", odd, len(labels), f"{labels[odd[0]]!r}, which is neither a name nor a number")
    is_text = [isinstance(label, str) for label in labels.tolist()]
    if any(is_text) and not all(is_text):
        row = is_text.index(not is_text[0])
        raise _bad_row(
            "labels", [row], len(labels), f"{labels[row]!r}; the rows above hold the other of name and number"
        )
    return np.array(labels.tolist())


def _checked_probs(probs: np.ndarray, count: int) -> np.ndarray:
    """Return probabilities with an axis of networks. Shape: (N, C) or (P, N, C) -> (P, N, C) float32."""
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


def checked_features(features: np.ndarray, count: int) -> np.ndarray:
    """Return features that have directions, as neighbors are found by angle. Shape: (N, D) -> (N, D) float32."""
    if features.ndim != 2 or len(features) != count or 0 in features.shape or features.dtype.kind not in "fiu":
        raise UserError(
            f"features must be numbers of shape ({count}, D), a row for each label in their order, not "
            f"{features.dtype} {features.shape}"
        )
    with np.errstate(over="ignore"):
        found = features.astype(np.float32)
        # Neighbors are found by angle: a row whose squared length overflows float32 has no direction.
        length = np.concatenate([np.square(found[i : i + CHUNK]).sum(1) for i in range(0, count, CHUNK)])
    odd = np.flatnonzero(~np.isfinite(length))
    if len(odd):
        raise _bad_row("features", odd, count, "a number that is missing, infinite or too large; repair or scale them")
    return found


def _class_names(labels: np.ndarray, shares: np.ndarray | None, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return names of the columns: `wanted`, or names and numbers among the labels. Shape: (N,), (P, N, C)."""
    is_text = labels.dtype.kind == "U"
    if shares is None:
        return wanted if wanted is not None else sort_names(set(one_name(labels.tolist())))
    classes = shares.shape[2]
    if wanted is not None:
        names = wanted
    elif is_text:
        names = sort_names(set(one_name(labels.tolist())))
    else:
        names = tuple(str(c) for c in range(classes))
    if len(names) != classes:
        hint = (
            ""
            if wanted is not None
            else "; name the classes of all columns in their order with --classes (class_names=)"
        )
        raise UserError(f"there are {len(names)} class names for {classes} columns of probabilities{hint}")
    if len(set(names)) < classes or "" in names:
        raise UserError(f"class names must be {classes} different ones and none empty, not {', '.join(names)}")
    if wanted is None and is_text:
        _check_order(labels, shares, names)
    return names


def _check_order(labels: np.ndarray, shares: np.ndarray, names: tuple[str, ...]) -> None:
    """Refuse to guess where numbers as text fit the columns better in another order.

    Some programs sort `10` before `2`. Shape: (N,), (P, N, C).
    """
    if not all(NUMBER.fullmatch(name) for name in names):
        return
    fit = _mean_probability(_numbered(labels, names), shares)
    for order in (tuple(sorted(names)), tuple(sorted(names, key=float))):
        if order != names and _mean_probability(_numbered(labels, order), shares) > fit:
            raise UserError(
                f"the columns of probs do not seem to stand in the order {', '.join(names)}: name the classes in the "
                "order of the columns with --classes (class_names=)"
            )


def _mean_probability(numbers: np.ndarray, shares: np.ndarray) -> float:
    """Return the mean probability of the labels. Shape: (N,), (P, N, C) -> scalar."""
    return float(shares[:, np.arange(len(numbers)), numbers].mean())


def _numbered(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return labels as numbers of classes. Shape: (N,) names or numbers -> (N,) int64 in 0..C-1."""
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


def _bad_row(what: str, rows: Sequence[int] | np.ndarray, count: int, held: str) -> UserError:
    """Return the error for `rows` of `what`, of `count` in all, the first of which holds `held`."""
    return UserError(f"row {rows[0]} of {what} holds {held} ({len(rows)} such of {count})")
