"""Data and results of other libraries: probabilities and columns (cleanlab), PyTorch and Hugging Face data sets.

Neither cleanlab nor `datasets` is imported: a data set only has to have a length and items by number.
Legend: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from scanmix.audit import Audit
from scanmix.blocks.label_quality import DUPLICATE, OUT_OF_SCOPE
from scanmix.config import UserError, check_type, in_short
from scanmix.data.arrays import WHITES, find_white, same_shape, to_images
from scanmix.data.decoding import upright, why_unreadable
from scanmix.data.examples import Examples
from scanmix.progress import Bar, Quiet, progress
from scanmix.training.loop import train

MOST = 10_000_000
"""Largest number of a class. Without names each number up to the largest is a class, and takes memory."""


class Indexable(Protocol):
    """A map-style data set, such as any `torch.utils.data.Dataset` with a length."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""


def cross_validated(
    examples: Examples, folds: int = 5, seed: int = 0, *, show: bool = True, **settings: Any
) -> np.ndarray:
    """Return the probabilities of each example by a model that was not trained on it: cleanlab's `pred_probs`.

    Args:
        examples: with labels that may be wrong; row i of the result belongs to example i, column c to class c.
        folds: number of models; each is trained without one of as many equal parts, which are drawn at random.
        seed: of the parts and of each training.
        show: whether to show a bar, if there is a terminal.
        settings: of each training, as `scanmix.train` takes them.

    Shape: -> (N, C) float32.

    Raises:
        UserError: there are fewer examples than folds or fewer than two folds; or the settings do not fit.
    """
    if not 2 <= folds <= len(examples):
        raise UserError(f"{folds} folds of {len(examples)} examples: 2 to {len(examples)} are possible")
    place = np.random.default_rng(seed).permutation(len(examples)) % folds
    probs = np.zeros((len(examples), examples.num_classes), dtype=np.float32)
    with progress("cross-validation", folds, outer=None if show else Quiet()) as bar:
        for fold in range(folds):
            run = train(examples.select(place != fold), seed=seed, progress=False, **settings)
            probs[place == fold] = run.predict_proba(examples.select(place == fold))
            bar.advance()
    return probs


def datalab_columns(audit: Audit) -> dict[str, np.ndarray]:
    """Return an audit with the names and types of cleanlab's Datalab, in the order of the training data.

    Scores run from 0 (worst) to 1. `is_label_issue`: the label looks wrong, another class is more probable, and no
    person has decided; `label_score` is p_clean. `is_outlier_issue`: kind `out_of_scope`; `outlier_score` is
    the probability of the most probable class. `is_near_duplicate_issue`: kind `duplicate`, which is narrower than in
    Datalab: the same pixels under another label; the score is 0 there and 1 elsewhere.

    Shape: -> columns (N,): bool, float64, and class names.
    """
    doubted = audit.looks_wrong
    duplicate = audit["kind"] == DUPLICATE
    worst_first = {
        "is_label_issue": doubted,
        "label_score": audit["p_clean"].astype(np.float64),
        "given_label": audit["given"],
        "predicted_label": audit["suggested"],
        "is_outlier_issue": audit["kind"] == OUT_OF_SCOPE,
        "outlier_score": audit["confidence"].astype(np.float64),
        "is_near_duplicate_issue": duplicate,
        "near_duplicate_score": (~duplicate).astype(np.float64),
    }
    place = audit.order.argsort()
    return {name: column[place] for name, column in worst_first.items()}


def from_dataset(dataset: Indexable, class_names: Sequence[str] | None = None, name: str = "data") -> Examples:
    """Read every (image, label) of a data set, such as one of torchvision's without its random transforms.

    An image is a PIL image, an array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W); all have one size. A PIL
    image is decoded as its file would be (16 bits scaled, transparency on white, upright). Bytes are taken as they
    are; other numbers run from 0 to 1 or to 255.

    Args:
        dataset: has a length, and items by number; each item is a pair.
        class_names: label i means `class_names[i]`; by default `dataset.classes`, else the numbers themselves.
        name: a short name of the data set.

    Raises:
        UserError: an item is no such pair, the images differ in size or scale, or a label is not the number of a class.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(f"that is no data set: it needs a length and items by number, and {in_short(dataset)} has none")
    check_type("name", name, str, "a short text")
    with progress("reading images", len(dataset)) as bar:
        pairs = [_pair(_item(dataset, i), i, bar) for i in range(len(dataset))]
    names = class_names if class_names is not None else getattr(dataset, "classes", None)
    return _examples(pairs, names, name)


def to_dataset(examples: Examples) -> TensorDataset:
    """Return a PyTorch data set of (image, label): (channels, H, W) uint8 (a vector: (D,) float32), int64."""
    inputs = examples.images.flatten(1) if examples.kind == "vector" else examples.images
    return TensorDataset(inputs, examples.labels)


def from_hugging_face(dataset: Any, image: str | None = None, label: str | None = None, name: str = "data") -> Examples:
    """Read a `datasets.Dataset` (one split) with a column of images and one of class labels.

    Args:
        dataset: has `features` by column, and rows that are mappings.
        image: its column of images; by default the only `Image` feature.
        label: its column of labels; by default the only `ClassLabel` feature, whose names become the class names.
        name: a short name of the data set.

    Raises:
        UserError: there is no such column, or there are several; or the images differ in size.
    """
    features = getattr(dataset, "features", None)
    if features is None or not hasattr(features, "items"):
        raise UserError("that is no Hugging Face data set of one split: it has no features; take dataset['train']")
    image = _only_column(features, "Image", image)
    label = _only_column(features, "ClassLabel", label)
    with progress("reading images", len(dataset)) as bar:
        rows = (dataset[i] for i in range(len(dataset)))
        pairs = [_pair((row[image], row[label]), i, bar) for i, row in enumerate(rows)]
    return _examples(pairs, getattr(features[label], "names", None), name)


def _only_column(features: Any, kind: str, wanted: str | None) -> str:
    """Return the column called `wanted`, or the only one of a kind."""
    if wanted is not None:
        if wanted not in features:
            raise UserError(f"the data set has no column {wanted!r}; it has {', '.join(features)}")
        return wanted
    found = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        raise UserError(f"the data set has {len(found)} {kind} columns among {', '.join(features)}; name one")
    return str(found[0])


def _item(dataset: Indexable, place: int) -> Any:
    """Return an item by its number. Only errors of what is no data set get a message; others are passed on."""
    try:
        return dataset[place]
    except (KeyError, IndexError) as error:
        raise UserError(f"that is no data set: it has no item {place} ({error!r})") from None


def _pair(item: Any, place: int, bar: Bar) -> tuple[np.ndarray, int]:
    """Return the image, (H, W) or (H, W, C), and the class number of an item."""
    try:
        image, label = item
        number = int(label)
        if number != label:
            raise ValueError(f"{label} is no whole number")
        if number > MOST:
            raise ValueError(f"{label} is too large for the number of a class")
        pixels = image if isinstance(image, Image.Image) else _pixels(image)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"item {place} is no pair of an image and a class number: {error}") from None
    bar.advance()
    return _decoded(pixels, place) if isinstance(pixels, Image.Image) else pixels, number


def _decoded(image: Image.Image, place: int) -> np.ndarray:
    """Decode a PIL image as its file would be. Shape: -> (H, W) or (H, W, 3) uint8."""
    try:
        return np.asarray(upright(image))
    except Exception as error:  # decoders raise whatever they like on broken input
        raise UserError(f"the image of item {place} cannot be read: {why_unreadable(error)}") from None


def _pixels(image: Any) -> np.ndarray:
    """Return an image as an array with channels last. Shape: -> (H, W) or (H, W, C)."""
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "fiub":
        raise ValueError("the image is neither a picture nor numbers of shape (H, W) or (H, W, C)")
    return pixels.transpose(1, 2, 0) if isinstance(image, Tensor) and pixels.ndim == 3 else pixels


def _names(class_names: object) -> Iterable[str]:
    """Return names of classes as text; a data set may hold numbers."""
    if isinstance(class_names, str | bytes) or not isinstance(class_names, Iterable):
        raise UserError(f"class_names must be several names, not {in_short(class_names)}")
    return map(str, class_names)


def _examples(pairs: Sequence[tuple[np.ndarray, int]], class_names: Sequence[str] | None, name: str) -> Examples:
    images, labels = [image for image, _ in pairs], [label for _, label in pairs]
    pixels = same_shape(images)
    names = map(str, range(max(labels) + 1)) if class_names is None else _names(class_names)
    return Examples(
        images=to_images(pixels, WHITES[-1] if pixels.dtype == np.uint8 else find_white(pixels)),
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=tuple(names),
        ids=tuple(f"{name}/{i}" for i in range(len(labels))),
        name=name,
    )
