"""Whether a pretrained encoder is the better start for these pictures, and what its features cost on this machine.

Legend: N pictures, C channels, H height, W width, D features.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError, as_typed, install
from scanmix.data.decoding import decode_images
from scanmix.data.examples import Examples
from scanmix.data.readers.images import side_within
from scanmix.distributed.engine import find_device
from scanmix.doctor.advice import PUBLISHED_FROM
from scanmix.features import AnyEncoder, as_vectors, open_encoder
from scanmix.features.at_hand import SUGGESTED, at_hand
from scanmix.features.embedding import batch_size, missing
from scanmix.progress import Tick

PICTURES = 64
"""Pictures that an encoder is measured on, ..."""
MOST_SECONDS = 8.0
"""... fewer where they take longer than this."""
TRIED = 3
"""Encoders that are here but do not open: after so many no other is tried."""
WITHOUT_WEIGHTS, FEW = "patches:256", 5_000
"""Where no pretrained encoder is here, the first, for up to so many photos: results/features.md has it ahead of a
network from scratch on 3,000 with wrong labels, and level with right ones. Such a network gains more from more photos;
where the two meet was not measured."""
LEAST_SIDE = 24
"""Pixels below which a picture shows little of what pretrained networks look for."""
COLORED, TONES, LOOKED_AT = 8, 64, 200
"""A photo's channels differ by the first number on average, of 255, and one of them has so many values; of the data set
so many pictures are looked at, and half of them must be photos."""


@dataclass(frozen=True, eq=False)
class Features:
    """What the features of an encoder cost here.

    Attributes:
        model: the encoder, as `--features` takes it.
        license: of its weights, where it is known.
        seconds: for all pictures that are not in the cache.
        missing: how many these are.
        measured: pictures that were measured.
        rows: their features, (measured, D, 1, 1) float32.
    """

    model: str
    license: str | None
    seconds: float
    missing: int
    measured: int
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Proposal:
    """Features before a network that learns from nothing.

    Attributes:
        features: what those of an encoder that is here cost; None where there is none.
        pretrained: whether that encoder is a pretrained one; else `ways_to_get_one` says how to get one.
    """

    features: Features | None
    pretrained: bool


def propose(train: Examples, num_test: int, device: str, tick: Tick) -> Proposal | None:
    """Return what features would cost, pretrained ones if they can; None where a network can learn from so many.

    Args:
        train: the training pictures.
        num_test: how many test pictures there are.
        device: where the encoder would compute.
        tick: called with the number of pictures that are measured.

    Raises:
        UserError: no such device.
    """
    if len(train) >= PUBLISHED_FROM or not look_natural(train):
        return None
    find_device(device)
    for found in at_hand()[:TRIED]:
        try:
            encoder = open_encoder(found.place, device=device)
            return Proposal(cost_of(found.name, encoder, train, num_test, tick), pretrained=True)
        except UserError:  # of another version of its library, or damaged
            continue
    if len(train) > FEW:
        return Proposal(None, pretrained=False)
    encoder = open_encoder(WITHOUT_WEIGHTS, device=device)
    return Proposal(cost_of(WITHOUT_WEIGHTS, encoder, train, num_test, tick), pretrained=False)


def look_natural(examples: Examples) -> bool:
    """Return whether most pictures are photos: colored, of many tones, and not tiny."""
    if examples.kind != "image" or examples.channels != 3 or min(examples.size) < LEAST_SIDE:
        return False
    sample = examples.images[:: max(1, len(examples) // LOOKED_AT)][:LOOKED_AT].cpu()
    colors = (sample.amax(1) - sample.amin(1)).float().mean((1, 2)) >= COLORED
    tones = torch.tensor([len(picture[1].unique()) >= TONES for picture in sample])
    return bool((colors & tones).float().mean() >= 0.5)


def cost_of(model: str, encoder: AnyEncoder, train: Examples, num_test: int, tick: Tick) -> Features:
    """Measure what reading pictures and encoding them costs, on a few of them.

    Args:
        model: the encoder's name.
        encoder: it, open.
        train: the training pictures; where they lie in files, these are read again at the encoder's size.
        num_test: how many test pictures there are; they count as training pictures do.
        tick: called with the number of pictures that are measured.

    Raises:
        UserError: the encoder fails on such pictures.
    """
    clock = time.perf_counter()
    pictures, kept = _read(train, encoder)
    reading = (time.perf_counter() - clock) / len(pictures)
    encoder.encode(pictures[:1])  # the first allocates memory, and is not timed
    found: list[Tensor] = []
    clock, done = time.perf_counter(), 0
    for part in pictures.split(batch_size(pictures, encoder)):
        if done and time.perf_counter() - clock > MOST_SECONDS:
            break
        found.append(encoder.encode(part))
        done += len(part)
        tick(done, len(pictures), "")
    each = (time.perf_counter() - clock) / done + reading
    rows = as_vectors(torch.cat(found).numpy().astype(np.float16))
    lacking = missing(train, encoder) if kept else len(train)  # else it is not known: the cache goes by the pixels
    left = 0 if lacking == 0 else lacking + num_test
    license_ = ", ".join(sorted({part.license for part in encoder.parts if part.license})) or None
    return Features(model, license_, each * left, left, done, rows)


def as_sample(train: Examples, features: Features) -> Examples:
    """Return the measured pictures as vectors, to measure on what the methods for features cost."""
    some = train.select(torch.arange(len(features.rows)))
    return dataclasses.replace(some, images=features.rows)


def _read(train: Examples, encoder: AnyEncoder) -> tuple[Tensor, bool]:
    """Return a few pictures as the encoder would get them, and whether `train` holds them all at that size.

    Shape: -> (at most PICTURES, C, H, W) uint8.
    """
    few = torch.linspace(0, len(train) - 1, min(PICTURES, len(train))).long()
    if train.paths is None or encoder.side is None:
        return train.images[few].cpu(), True
    paths = [Path(path) for path in train.paths]
    side = side_within(paths, encoder.side)
    if train.size == (side, side):
        return train.images[few].cpu(), True
    decoded = decode_images([paths[place] for place in few.tolist()], side, train.channels)
    read = [image for image in decoded if not isinstance(image, str)]
    return (torch.from_numpy(np.stack(read)) if read else train.images[few].cpu()), False


def ways_to_get_one(command: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return how to get an encoder, with a network and without: a sentence and a line to type, each.

    `command` is the line that trains, without `--features`.
    """
    line = as_typed([*command, "--features", SUGGESTED])
    page = f"https://huggingface.co/timm/{SUGGESTED.removeprefix('timm:')}"
    first = "" if importlib.util.find_spec("timm") else f"{install('timm')} && "
    return (
        ("With a network, from which the weights come the first time (350 MB)", first + line),
        (f"Without one, copy model.safetensors of {page} here", f"{line}@model.safetensors"),
    )
