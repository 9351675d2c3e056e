"""The contact sheet: the most doubtful labels with their images, and what the nearest images are called."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from scanmix.report.findings import Findings

CARDS = 48
NEIGHBORS = 6
LARGE, SMALL = 96, 40
"""Most pixels of a side: with these even images of pure noise stay far below five megabytes."""
TINY = 64
"""Images up to this side are enlarged with square pixels."""


class Thumbnail(NamedTuple):
    """A neighbor."""

    image: str
    given: str


class Card(NamedTuple):
    """One label and the evidence against it."""

    rank: int
    image: str
    name: str
    given: str
    suggested: str
    p_clean: float
    kind: str
    reason: str
    truth: str | None
    neighbors: list[Thumbnail]


def contact_sheet(found: Findings, count: int = CARDS) -> list[Card]:
    """Return the most doubtful labels as cards; nothing without an audit, or of vectors."""
    audit, examples = found.audit, found.examples
    if audit is None or examples is None or examples.kind == "vector":
        return []
    images, truth = examples.images.cpu().numpy(), found.truth
    cards = []
    for row in range(min(count, len(audit["id"]))):
        place = int(audit.order[row])
        near = [] if audit.neighbors is None else audit.neighbors[row, :NEIGHBORS].tolist()
        cards.append(
            Card(
                rank=row + 1,
                image=png(images[place], LARGE),
                name=str(audit["path"][row] or audit["id"][row]),
                given=str(audit["given"][row]),
                suggested=str(audit["suggested"][row]),
                p_clean=float(audit["p_clean"][row]),
                kind=str(audit["kind"][row]),
                reason=str(audit["reason"][row]),
                truth=None if truth is None else audit.class_names[int(truth[place])],
                neighbors=[Thumbnail(png(images[audit.order[r]], SMALL), str(audit["given"][r])) for r in near],
            )
        )
    return cards


def is_tiny(found: Findings) -> bool:
    """Whether images have so few pixels that they should be seen."""
    return found.examples is not None and max(found.examples.size) <= TINY


def png(image: np.ndarray, most: int) -> str:
    """Return an image as a data URI, scaled down to `most` pixels a side. Shape: (channels, H, W) uint8."""
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture.thumbnail((most, most))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
