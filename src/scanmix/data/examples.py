"""`Examples`: images, the labels that came with them, and how to load both again.

N examples, C classes. Everything above `data/` sees images and labels only through this one type.
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
"""What an example is."""
OPEN_SET = -1
"""The true label of an image that is of no class here, whatever label it was given: open-set noise."""
DECIDED = ("", "keep", "accept", "relabel")
"""What a person may have decided of a label that is still there; the place is the code in `Examples.decided`."""
Excluded: TypeAlias = tuple[str, str, str]
"""What is left of an example that a person left out: id, path ("" where there is none) and the label it was given."""
JSON: TypeAlias = Union[bool, int, float, str, Sequence["JSON"], Mapping[str, "JSON"], None]  # noqa: UP007


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseReport:
    """What was asked of a label noise and what came out, measured against the true labels.

    Attributes:
        kind: "symmetric", "symmetric-exclusive", "asymmetric" or "file"; of labels that came wrong, "human" or "web".
        asked_rate: the share of labels the noise selected; None where nobody knows.
        actual_rate: the share of labels that differ from the true ones, foreign images included.
        seed: the seed of the draw; None where nobody knows.
        transition: (C, C) shares; rows are true classes, columns given; zero for a class without examples.
            Foreign images are in no row.
    """

    kind: str
    asked_rate: float | None
    actual_rate: float
    seed: int | None
    transition: tuple[tuple[float, ...], ...]


def measure_transition(true_labels: Tensor, labels: Tensor, num_classes: int) -> tuple[tuple[float, ...], ...]:
    """Share of each true class (row) that was given each label (column); foreign images are in no row.

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
        images: (N, channels, H, W) uint8; or feature vectors, (N, D, 1, 1) float32: one pixel of D channels. Where
            they are too many for memory (`data.store`) their pages are read from a file as they are used.
        labels: (N,) int64, the given labels, which may be wrong.
        class_names: C names; label i means `class_names[i]`.
        ids: N unique names that stay the same from load to load.
        name: short name of the data set.
        paths: N file paths, or None for images that never were files.
        true_labels: (N,) int64, for evaluation only; `FOREIGN` for an image of no class here; None where unknown.
        flip: whether a mirrored image keeps its class.
        noise: what `add_noise` did, or what is known of labels that came wrong; else None.
        source: how to load these examples again (`readers.reload`), or None for arrays in memory.
        skipped: files set aside while reading, each "path: reason".
        decided: (N,) int8, places in `DECIDED`: the labels that a person has decided already, for the list of what to
            look at next. No method sees it, and it is not in the fingerprint. None where nobody was asked.
        excluded: what a person has left out of these examples, so that it stays out.

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
    excluded: tuple[Excluded, ...] = ()

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

    def __len__(self) -> int:
        """Return N."""
        return self.images.shape[0]

    @property
    def num_examples(self) -> int:
        """N."""
        return self.images.shape[0]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def kind(self) -> Kind:
        """Images or feature vectors."""
        return "vector" if self.images.dtype == torch.float32 else "image"

    @property
    def channels(self) -> int:
        """1 for gray images, 3 for color; the number of features of vectors."""
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def foreign(self) -> Tensor | None:
        """(N,) bool, images known to be of no class here: every label of theirs is wrong. None without true labels."""
        return None if self.true_labels is None else self.true_labels == OPEN_SET

    def select(self, index: Tensor | np.ndarray | Sequence[int]) -> Examples:
        """Return the examples at `index` (positions, or a mask of N booleans), in that order.

        The result has no `source`: an arbitrary choice cannot be loaded again; one by `per_class` can.

        Raises:
            UserError: `index` is neither. IndexError: a position or the length of a mask does not fit.
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
        )

    def per_class(self, count: int, seed: int = 0) -> Examples:
        """Draw `count` examples of each given label, in their old order; larger draws contain smaller.

        Raises:
            UserError: if a class has fewer than `count` examples.
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
        """Return the same images with other given labels; the old become the true ones if none are known.

        What a person decided was about the old ones, and is dropped.

        `step` is what `reload` must do to arrive here again; without it the result has no `source`.
        """
        return dataclasses.replace(
            self,
            labels=labels,
            true_labels=self.labels if self.true_labels is None else self.true_labels,
            noise=noise,
            source=None if step is None else self.source_after(step),
            decided=None,
        )

    def corrected(
        self, labels: Tensor, keep: Tensor, *, step: JSON, decided: Tensor | None = None,
        excluded: Sequence[Excluded] = (),
    ) -> Examples:  # fmt: skip
        """Return the kept examples with labels that a person corrected; the old are not taken for the true ones.

        Shape: labels (N,) int64, keep (N,) bool, decided (N,) int8 as the field. `excluded` is what is left out now
        or was gone already; `step` as in `with_labels`.
        """
        left_out = tuple(dict.fromkeys((*self.excluded, *excluded)))
        relabeled = dataclasses.replace(self, labels=labels, noise=None, decided=decided, excluded=left_out)
        kept = relabeled if bool(keep.all()) else relabeled.select(keep)  # a choice is a copy of its pixels
        return dataclasses.replace(kept, source=self.source_after(step))

    def without_open_set(self) -> Examples:
        """Return the examples that may be of a class here: those that accuracy can be measured on."""
        foreign = self.foreign
        return self if foreign is None or not bool(foreign.any()) else self.select(~foreign)

    def without_true_labels(self) -> Examples:
        """Return the same examples with every trace of the true labels and of the noise removed."""
        source = self.source_after({"without_true_labels": True})
        return dataclasses.replace(self, true_labels=None, noise=None, source=source)

    def fingerprint(self) -> str:
        """Hex SHA-256 of images and given labels: equal exactly if both are equal, shapes included."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.num_classes}".encode())
        digest.update(self.images.cpu().contiguous().numpy().reshape(-1).data)
        digest.update(self.labels.cpu().numpy().astype("<i8").data)
        return digest.hexdigest()

    def source_after(self, step: JSON) -> Mapping[str, JSON] | None:
        """Return `source` with one more step that `reload` must do; None where there is none."""
        if self.source is None:
            return None
        steps = self.source.get("steps", [])
        if not isinstance(steps, Sequence):
            raise UserError(f"the source of {self.name!r} has steps that are not a list.")
        return {**self.source, "steps": [*steps, step]}


def changed_share(true_labels: Tensor, labels: Tensor) -> float:
    """Share of labels that differ from the true ones. Shape: (N,), (N,) -> float; 0 for no examples."""
    return (true_labels != labels).double().mean().item() if len(labels) else 0.0


def _check_labels(labels: Tensor, count: int, num_classes: int, what: str, least: int = 0) -> None:
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise UserError(f"{what} must be {count} int64 numbers, not {labels.dtype} of shape {tuple(labels.shape)}.")
    if count and not least <= int(labels.min()) <= int(labels.max()) < num_classes:
        low, high = int(labels.min()), int(labels.max())
        raise UserError(f"{what} must lie in {least}..{num_classes - 1}, but run from {low} to {high}.")
