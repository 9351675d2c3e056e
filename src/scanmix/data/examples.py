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
import torch
from torch import Tensor

from scanmix.config import UserError, in_short
from scanmix.data.checks import check_labels, check_mask, check_votes
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition

Kind: TypeAlias = Literal["image", "vector"]
"""What the examples are: images, or feature vectors."""
OPEN_SET = -1
"""The true label of an open-set image: one that is of none of the classes, whatever label it was given."""
NO_VOTE = -1
"""Stands in `Examples.votes` where an annotator has given no label."""
TRUSTED = "trusted"
DECIDED = ("", "keep", "accept", "relabel", TRUSTED)
"""What a person has said about labels of examples that stay; the position is the code in `Examples.decided`.

The first is nothing, the next three are decisions of a review, and the last says that a label came with the data as one
that is known to be right.
"""
NOT_KNOWN = -1
"""Stands in `Examples.before` where a person has decided and the label that was there before is not known."""
Excluded: TypeAlias = tuple[str, str, str]
"""The record of an example that a person excluded: id, path ("" if there is none) and given label."""
JSON: TypeAlias = Union[bool, int, float, str, Sequence["JSON"], Mapping[str, "JSON"], None]  # noqa: UP007


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
        decided: (N,) int8, positions in `DECIDED`: what a person has decided about each label. A review does not ask
            again, and methods take all such labels for right (`trusted`). It is not in the fingerprint. None before any
            review.
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
        check_labels(self.labels, len(self), self.num_classes, f"labels of {self.name!r}")
        if self.true_labels is not None:
            check_labels(self.true_labels, len(self), self.num_classes, f"true labels of {self.name!r}", OPEN_SET)
        if self.decided is not None and (self.decided.dtype != torch.int8 or self.decided.shape != (len(self),)):
            has = f"{self.decided.dtype} of shape {tuple(self.decided.shape)}"
            raise UserError(f"decided of {self.name!r} must be {len(self)} int8 numbers, not {has}.")
        if self.before is not None:
            what = f"labels before of {self.name!r}"
            check_labels(self.before, len(self), self.num_classes, what, NOT_KNOWN)
        check_votes(self.votes, self.annotators, len(self), self.num_classes, NO_VOTE, f"{self.name!r}")

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

    @property
    def trusted(self) -> Tensor | None:
        """Which labels are known to be right: all that a person has decided. Shape: (N,) bool, None without any."""
        return None if self.decided is None or not bool(self.decided.any()) else self.decided > 0

    def trusting(self, mask: Tensor | np.ndarray | Sequence[bool]) -> Examples:
        """Return the same examples with the labels at `mask` as known to be right; other decisions stay.

        The result has no `source`, since an arbitrary mask cannot be loaded again; a column `trusted` in a table can.
        Shape: (N,) bool.

        Raises:
            UserError: `mask` is something else.
        """
        chosen = check_mask(mask, len(self), "trusted labels")
        before = torch.zeros(len(self), dtype=torch.int8) if self.decided is None else self.decided
        decided = before.masked_fill(chosen, DECIDED.index(TRUSTED))
        return dataclasses.replace(self, decided=decided, source=None)

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

        Decisions of a person are dropped, because they were about the old labels, and so are votes. A label that came
        as a trusted one stays trusted where it is still the same. Shape: (N,) int64.

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
            decided=self._still_trusted(labels),
            before=None,
            votes=None,
            annotators=(),
        )

    def keep_trusted(self, labels: Tensor) -> Tensor:
        """Return labels with those given that came as trusted ones in their place: noise does not hit these.

        Shape: (N,) int64 -> (N,) int64.
        """
        came = None if self.decided is None else self.decided == DECIDED.index(TRUSTED)
        return labels if came is None else torch.where(came, self.labels, labels)

    def _still_trusted(self, labels: Tensor) -> Tensor | None:
        """Return `decided` for other labels: trusted ones that have not changed, None if there is none."""
        if self.decided is None:
            return None
        code = DECIDED.index(TRUSTED)
        decided = torch.where(self.labels == labels, self.decided, 0) * (self.decided == code)
        return decided if bool(decided.any()) else None

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
