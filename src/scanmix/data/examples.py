"""`Examples`: images, the labels that came with them, and how to load both again.

All packages above `data` get images and labels as this one type. Legend: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, Union

import numpy as np
import pydantic.dataclasses
import torch
from torch import Tensor

from scanmix.config import STRICT, UserError, in_short

Kind: TypeAlias = Literal["image", "vector"]
"""What the examples are: images, or feature vectors."""
OPEN_SET = -1
"""The true label of an open-set image: one that is of none of the classes, whatever label it was given."""
NO_VOTE = -1
"""Stands in `Examples.votes` where an annotator has given no label."""
DECIDED = ("", "keep", "accept", "relabel")
"""Decisions of a person about labels of examples that stay; the position is the code in `Examples.decided`."""
NOT_KNOWN = -1
"""Stands in `Examples.before` where a person has decided and the label that was there before is not known."""
Excluded: TypeAlias = tuple[str, str, str]
"""The record of an example that a person excluded: id, path ("" if there is none) and given label."""
JSON: TypeAlias = Union[bool, int, float, str, Sequence["JSON"], Mapping[str, "JSON"], None]  # noqa: UP007


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseReport:
    """The label noise that was asked for and the result, measured against the true labels.

    Attributes:
        kind: "symmetric", "symmetric-exclusive", "asymmetric", "instance", "open-set", "semantic-..." or "file"; for
            labels that were wrong in the data set itself, "human" or "web".
        asked_rate: share of labels (0..1) that the noise selected; None if unknown.
        actual_rate: share of labels (0..1) that differ from the true ones, open-set images included.
        seed: seed of the draw; None if unknown.
        transition: (C, C) shares; rows are true classes, columns given labels. A row is zero for a class without
            examples. Open-set images are in no row.
    """

    kind: str
    asked_rate: float | None
    actual_rate: float
    seed: int | None
    transition: tuple[tuple[float, ...], ...]


def measure_transition(true_labels: Tensor, labels: Tensor, num_classes: int) -> tuple[tuple[float, ...], ...]:
    """Return the share of each true class (row) that was given each label (column); open-set images are in no row.

    Shape: (N,), (N,) int64 -> C tuples of C floats; rows sum to 1, or to 0 for a class without examples.
    """
    of_a_class = true_labels != OPEN_SET
    cells = torch.bincount(true_labels[of_a_class] * num_classes + labels[of_a_class], minlength=num_classes**2)
    counts = cells.reshape(num_classes, num_classes).double()
    rows = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return tuple(tuple(row) for row in rows.tolist())


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with the labels they were given.

    Attributes:
        images: (N, channels, H, W) uint8; or feature vectors, (N, D, 1, 1) float32, stored as one pixel of D
            channels. Images too large for memory (`data.store`) are read from a file page by page as they are used.
        labels: (N,) int64, the given labels, which may be wrong.
        class_names: C names; label i means `class_names[i]`.
        ids: N unique names that stay the same from load to load.
        name: short name of the data set.
        paths: N file paths, or None for images that never were files.
        true_labels: (N,) int64, for evaluation only; `OPEN_SET` for an image of none of the classes; None if unknown.
        flip: whether a mirrored image keeps its class.
        noise: the report of `add_noise`, or of noise that the data set came with; else None.
        source: how to load these examples again (`readers.reload`), or None for arrays in memory.
        skipped: files set aside while reading, each "path: reason".
        decided: (N,) int8, positions in `DECIDED`: what a person has decided about each label, so that a review does
            not ask again. No method sees it, and it is not in the fingerprint. None before any review.
        before: (N,) int64, the label before a person's first decision, `NOT_KNOWN` where that is not known; it tells
            nothing of a label that nobody has decided. No method sees it. None before any review.
        excluded: the examples that a person left out, so that they stay out.
        votes: (N, A) int64, the class that each of A annotators gave each example, `NO_VOTE` where one gave none; None
            if there is but one label each. `labels` are then the majority, see `readers.votes`.
        annotators: A names.

    Raises:
        UserError: if shapes, types, label range or ids do not fit together.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    name: str = "data"
    paths: tuple[str, ...] | None = None
    true_labels: Tensor | None = None
    flip: bool = True
    noise: NoiseReport | None = None
    source: Mapping[str, JSON] | None = None
    skipped: tuple[str, ...] = ()
    decided: Tensor | None = None
    before: Tensor | None = None
    excluded: tuple[Excluded, ...] = ()
    votes: Tensor | None = None
    annotators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        is_vectors = self.images.dtype == torch.float32 and self.images.shape[2:] == (1, 1)
        if self.images.ndim != 4 or not (is_vectors or self.images.dtype == torch.uint8):
            raise UserError(
                f"images of {self.name!r} must be uint8 of shape (N, channels, height, width), or float32 of shape "
                f"(N, features, 1, 1), not {self.images.dtype} of shape {tuple(self.images.shape)}."
            )
        if is_vectors and not all(bool(chunk.isfinite().all()) for chunk in self.images.split(65536)):
            raise UserError(f"{self.name!r} has features that are infinite or not a number.")
        if len(set(self.class_names)) < len(self.class_names):
            again = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise UserError(f"{self.name!r} has two classes called {again!r}; give each class a name of its own.")
        if len(self.ids) != len(self) or len(set(self.ids)) != len(self.ids):
            raise UserError(f"{self.name!r} needs {len(self)} different ids and has {len(set(self.ids))}.")
        if self.paths is not None and len(self.paths) != len(self):
            raise UserError(f"{self.name!r} has {len(self)} images but {len(self.paths)} paths.")
        _check_labels(self.labels, len(self), self.num_classes, f"labels of {self.name!r}")
        if self.true_labels is not None:
            _check_labels(self.true_labels, len(self), self.num_classes, f"true labels of {self.name!r}", OPEN_SET)
        if self.decided is not None and (self.decided.dtype != torch.int8 or self.decided.shape != (len(self),)):
            has = f"{self.decided.dtype} of shape {tuple(self.decided.shape)}"
            raise UserError(f"decided of {self.name!r} must be {len(self)} int8 numbers, not {has}.")
        if self.before is not None:
            _check_labels(self.before, len(self), self.num_classes, f"labels before of {self.name!r}", NOT_KNOWN)
        _check_votes(self)

    def __len__(self) -> int:
        """Return N."""
        return self.images.shape[0]

    @property
    def num_examples(self) -> int:
        """The number of examples, N."""
        return self.images.shape[0]

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return len(self.class_names)

    @property
    def kind(self) -> Kind:
        """Whether these are images or feature vectors."""
        return "vector" if self.images.dtype == torch.float32 else "image"

    @property
    def channels(self) -> int:
        """1 for gray images, 3 for color images, D for vectors of D features."""
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def open_set(self) -> Tensor | None:
        """Which images are of none of the classes, so that any label is wrong. Shape: (N,) bool; None if unknown."""
        return None if self.true_labels is None else self.true_labels == OPEN_SET

    def select(self, index: Tensor | np.ndarray | Sequence[int]) -> Examples:
        """Return the examples at `index` in that order; the pixels are copied.

        The result has no `source`, because an arbitrary selection cannot be loaded again; one of `per_class` can.
        Shape: (M,) positions or (N,) bool -> M examples.

        Raises:
            UserError: `index` is neither.
            IndexError: a position or the length of a mask does not fit.
        """
        try:
            wanted = torch.as_tensor(index)
            wanted = wanted if wanted.numel() else wanted.long()
        except (TypeError, ValueError, RuntimeError):
            wanted = torch.tensor(0.0)
        if wanted.is_floating_point() or wanted.is_complex() or wanted.ndim != 1:
            raise UserError(f"index must be several positions or a mask of {len(self)} booleans, not {in_short(index)}")
        chosen = torch.arange(len(self))[wanted if wanted.dtype == torch.bool else wanted.to(torch.int64)]
        places = chosen.tolist()
        labels = self.labels[chosen]
        true_labels = None if self.true_labels is None else self.true_labels[chosen]
        noise = self.noise
        if noise is not None and true_labels is not None:
            noise = dataclasses.replace(
                noise,
                actual_rate=changed_share(true_labels, labels),
                transition=measure_transition(true_labels, labels, self.num_classes),
            )
        return dataclasses.replace(
            self,
            images=self.images[chosen],
            labels=labels,
            ids=tuple(self.ids[i] for i in places),
            paths=None if self.paths is None else tuple(self.paths[i] for i in places),
            true_labels=true_labels,
            noise=noise,
            source=None,
            decided=None if self.decided is None else self.decided[chosen],
            before=None if self.before is None else self.before[chosen],
            votes=None if self.votes is None else self.votes[chosen],
        )

    def per_class(self, count: int, seed: int = 0) -> Examples:
        """Draw `count` examples of each given label, kept in order. A larger draw of a seed contains the smaller ones.

        Raises:
            UserError: `count` is below 1, or a class has fewer examples.
        """
        if count < 1:
            raise UserError(f"per_class must be at least 1, not {count}.")
        labels = self.labels.numpy()
        chosen: list[np.ndarray] = []
        for label, class_name in enumerate(self.class_names):
            members = np.flatnonzero(labels == label)
            if len(members) < count:
                raise UserError(f"per_class={count} is too many: {self.name!r} has {len(members)} of {class_name!r}.")
            chosen.append(np.random.default_rng([seed, label]).permutation(members)[:count])
        subset = self.select(np.sort(np.concatenate(chosen)))
        source = self.source_after({"per_class": {"count": count, "seed": seed}})
        return dataclasses.replace(subset, source=source)

    def with_labels(self, labels: Tensor, *, noise: NoiseReport | None = None, step: JSON = None) -> Examples:
        """Return the same images with other given labels; the old labels become the true ones if those are unknown.

        Decisions of a person are dropped, because they were about the old labels, and so are votes. Shape: (N,) int64.

        Args:
            labels: the new given labels.
            noise: the report of the noise that made them.
            step: what `readers.reload` must do to make these examples again; without it the result has no `source`.
        """
        return dataclasses.replace(
            self,
            labels=labels,
            true_labels=self.labels if self.true_labels is None else self.true_labels,
            noise=noise,
            source=None if step is None else self.source_after(step),
            decided=None,
            before=None,
            votes=None,
            annotators=(),
        )

    def corrected(
        self, labels: Tensor, selected: Tensor, *, step: JSON, decided: Tensor | None = None,
        before: Tensor | None = None, excluded: Sequence[Excluded] = (),
    ) -> Examples:  # fmt: skip
        """Return the selected examples with labels that a person corrected; old labels do not become true ones.

        Args:
            labels: (N,) int64, the corrected labels.
            selected: (N,) bool, which examples stay.
            step: as in `with_labels`.
            decided: (N,) int8, as the field `decided`.
            before: (N,) int64, as the field `before`.
            excluded: records of the examples that are left out now, or were missing already.
        """
        left_out = tuple(dict.fromkeys((*self.excluded, *excluded)))
        relabeled = dataclasses.replace(
            self, labels=labels, noise=None, decided=decided, before=before, excluded=left_out
        )
        kept = relabeled if bool(selected.all()) else relabeled.select(selected)  # `select` copies the pixels
        return dataclasses.replace(kept, source=self.source_after(step))

    def without_open_set(self) -> Examples:
        """Return the examples without open-set images: those on which accuracy can be measured."""
        open_set = self.open_set
        return self if open_set is None or not bool(open_set.any()) else self.select(~open_set)

    def without_true_labels(self) -> Examples:
        """Return the same examples with every trace of the true labels and of the noise removed."""
        source = self.source_after({"without_true_labels": True})
        return dataclasses.replace(self, true_labels=None, noise=None, source=source)

    def fingerprint(self) -> str:
        """Return a hex SHA-256 of images, given labels and the number of classes; it identifies the data of a run.

        A run stores it and refuses to go on with other data. `TrainingData.fingerprint` hashes the images alone, for
        cache keys that must not depend on labels. The two hash the shape and pixels in different ways; stored runs and
        cached results contain the values, so neither may change. All pixels are read, also those on the disk.
        """
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.num_classes}".encode())
        digest.update(self.images.cpu().contiguous().numpy().reshape(-1).data)
        digest.update(self.labels.cpu().numpy().astype("<i8").data)
        return digest.hexdigest()

    def source_after(self, step: JSON) -> Mapping[str, JSON] | None:
        """Return `source` with one more step for `readers.reload`; None if there is no `source`.

        Raises:
            UserError: the steps in `source` are not a list.
        """
        if self.source is None:
            return None
        steps = self.source.get("steps", [])
        if not isinstance(steps, Sequence):
            raise UserError(f"the source of {self.name!r} has steps that are not a list.")
        return {**self.source, "steps": [*steps, step]}


def changed_share(true_labels: Tensor, labels: Tensor) -> float:
    """Return the share of labels that differ from the true ones, 0..1. Shape: (N,), (N,) -> scalar; 0 if N is 0."""
    return (true_labels != labels).double().mean().item() if len(labels) else 0.0


def _check_labels(labels: Tensor, count: int, num_classes: int, what: str, least: int = 0) -> None:
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise UserError(f"{what} must be {count} int64 numbers, not {labels.dtype} of shape {tuple(labels.shape)}.")
    if count and not least <= int(labels.min()) <= int(labels.max()) < num_classes:
        low, high = int(labels.min()), int(labels.max())
        raise UserError(f"{what} must lie in {least}..{num_classes - 1}, but run from {low} to {high}.")


def _check_votes(examples: Examples) -> None:
    votes, name, count = examples.votes, examples.name, len(examples.annotators)
    if votes is None:
        if count:
            raise UserError(f"{name!r} has {count} annotators but no votes.")
        return
    if votes.dtype != torch.int64 or votes.shape != (len(examples), count):
        has = f"{votes.dtype} of shape {tuple(votes.shape)}"
        raise UserError(f"votes of {name!r} must be int64 of shape ({len(examples)}, {count}), not {has}.")
    if len(set(examples.annotators)) < count:
        raise UserError(f"{name!r} has {count} annotators, but {len(set(examples.annotators))} different names.")
    if votes.numel() and not NO_VOTE <= int(votes.min()) <= int(votes.max()) < examples.num_classes:
        low, high = int(votes.min()), int(votes.max())
        raise UserError(
            f"votes of {name!r} must lie in {NO_VOTE}..{examples.num_classes - 1}, but run from {low} to {high}."
        )
