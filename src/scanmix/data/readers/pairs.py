"""Lists of image files with class numbers, read into a pair of training and test examples."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers.images import read_images

Pair = tuple[Examples, Examples | None]
"""Training and test examples; None where there are no test examples."""


class Entry(NamedTuple):
    """One image file of a list."""

    id: str
    path: Path
    label: int
    true_label: int | None = None
    """None where it is not known; `OPEN_SET` for an image of no class."""


def to_examples(
    name: str,
    class_names: tuple[str, ...],
    train: Sequence[Entry],
    test: Sequence[Entry],
    size: int | None,
    *,
    channels: int | None = None,
    skipped: tuple[str, ...] = (),
    error: type[UserError] = UserError,
) -> Pair:
    """Decode the files of training and test images together, so that all have one size and one number of channels.

    An image is resized until its shorter side is `size`, then the center square is cut out. Files that cannot be read
    are set aside, with a warning, and listed in `skipped` of the training examples.
    Shape: images (N, channels, size, size) uint8.

    Args:
        name: short name of the data set.
        class_names: C names; a label is a position among them.
        train: the training images.
        test: the test images; there may be none.
        size: side in pixels; by default the one that `read_images` takes for the training images.
        channels: 1 or 3; by default 1 if every file is gray, else 3.
        skipped: files set aside before, each "path: reason"; they are listed first.
        error: what is raised where a part has no image left.

    Raises:
        DataError: not one file can be read.
        UserError: of the kind `error`, if no training image or no test image can be read.
    """
    entries = [*train, *test]
    decoded = read_images([entry.path for entry in entries], size, channels, sized_by=len(train))

    def part(first: int, stop: int, split: str, set_aside: tuple[str, ...]) -> Examples:
        places = slice(bisect_left(decoded.kept, first), bisect_left(decoded.kept, stop))
        kept = [entries[place] for place in decoded.kept[places]]
        if not kept:
            raise error(f"not one of the {split} images of {name!r} could be read.")
        return Examples(
            images=decoded.images[places],
            labels=torch.tensor([entry.label for entry in kept]),
            class_names=class_names,
            ids=tuple(entry.id for entry in kept),
            name=name,
            paths=tuple(str(entry.path) for entry in kept),
            true_labels=_true_labels(kept),
            skipped=set_aside,
        )

    train_set = part(0, len(train), "training", skipped + decoded.skipped)
    return train_set, part(len(train), len(entries), "test", ()) if test else None


def _true_labels(entries: Sequence[Entry]) -> Tensor | None:
    """True labels; None unless every one is known. Shape: -> (N,) int64."""
    known = [entry.true_label for entry in entries if entry.true_label is not None]
    return torch.tensor(known) if len(known) == len(entries) else None
