"""Convert examples to fit a model: its class numbers, image size and number of channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import JSON, OPEN_SET, Examples
from scanmix.data.readers.images import resize_all
from scanmix.files.cells import without_point


def match(examples: Examples, class_names: Sequence[str], size: Sequence[int], channels: int) -> Examples:
    """Return the examples with the class numbers (by name), image size and channels of a model.

    Shape: images (N, c, h, w) -> (N, channels, *size) uint8.

    Args:
        examples: images, or vectors, which must have the right number of features already.
        class_names: names of the classes of the model.
        size: height and width in pixels that the model takes.
        channels: 1 or 3, or the number of features.

    Raises:
        UserError: a class is not one of `class_names`, vectors do not fit, or images would have to be resized to a size
            that is not square.
    """
    number = torch.tensor(_places(examples, class_names))
    height, width = size
    if examples.kind == "vector" or (height, width) == (1, 1):
        if (examples.channels, *examples.size) != (channels, height, width):
            theirs = "x".join(map(str, (examples.channels, *examples.size)))
            raise UserError(f"the model takes {channels}x{height}x{width} numbers, but {examples.name!r} has {theirs}.")
    elif examples.size != (height, width):
        if height != width:
            raise UserError(
                f"the model takes images of {height}x{width} pixels, but those of {examples.name!r} are "
                f"{examples.size[0]}x{examples.size[1]}; only squares are resized."
            )
        examples = resize_all(examples, height)
    true_labels = examples.true_labels
    if true_labels is not None:
        true_labels = number[true_labels].where(true_labels != OPEN_SET, OPEN_SET)
    step: JSON = {"match": {"class_names": list(class_names), "size": [height, width], "channels": channels}}
    source = examples.source
    if source is not None:
        steps = source.get("steps", [])
        source = {**source, "steps": [*(steps if isinstance(steps, Sequence) else []), step]}
    return dataclasses.replace(
        examples,
        images=with_channels(examples.images, channels),
        labels=number[examples.labels],
        true_labels=true_labels,
        class_names=tuple(class_names),
        noise=None,
        source=source,
        votes=None,  # they count nothing where examples are only measured on
        annotators=(),
    )


def _places(examples: Examples, class_names: Sequence[str]) -> list[int]:
    """Return the number of each class in a model; the names `1.0` and `1` are the same class.

    Raises:
        UserError: the model does not know a class.
    """
    places = {without_point(name): place for place, name in reversed(list(enumerate(class_names)))}
    places |= {name: place for place, name in enumerate(class_names)}
    found = [places.get(name, places.get(without_point(name))) for name in examples.class_names]
    if None in found:
        unknown = examples.class_names[found.index(None)]
        raise UserError(f"{examples.name!r} has the class {unknown!r}; the model knows {', '.join(class_names)}.")
    return [place for place in found if place is not None]


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Convert gray images to color or color to gray (ITU-R 601-2 luma, as Pillow does).

    Shape: (N, c, H, W) -> (N, channels, H, W) uint8.
    """
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1).contiguous()
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    return (images.float() * weights).sum(1, keepdim=True).round().to(torch.uint8)
