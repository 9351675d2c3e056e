"""The contact sheet: the most doubtful labels with their images, and what the nearest others are called.

A feature vector has no image: it and its neighbors are shown by their ids.
"""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from scanmix.data.examples import Examples
from scanmix.report.findings import Findings

CARDS = 48
NEIGHBORS = 6
LARGE, SMALL = 96, 40
"""Most pixels of a side: with these even images of pure noise stay far below five megabytes."""
TINY = 64
"""Images up to this side are enlarged with square pixels."""


class Neighbor(NamedTuple):
    """One of the nearest others, and the label it was given."""

    image: str | None
    id: str
    given: str


class Card(NamedTuple):
    """One label and the evidence against it."""

    rank: int
    image: str | None
    name: str
    given: str
    suggested: str
    p_clean: float
    kind: str
    reason: str
    truth: str | None
    neighbors: list[Neighbor]


def contact_sheet(found: Findings, count: int = CARDS) -> list[Card]:
    """Return the most doubtful labels as cards; nothing without an audit."""
    audit, examples, truth = found.audit, found.examples, found.truth
    if audit is None or examples is None:
        return []
    cards = []
    for row in range(min(count, len(audit["id"]))):
        place = int(audit.order[row])
        near = [] if audit.neighbors is None else audit.neighbors[row, :NEIGHBORS].tolist()
        cards.append(
            Card(
                rank=row + 1,
                image=picture(examples, place, LARGE),
                name=str(audit["path"][row] or audit["id"][row]),
                given=str(audit["given"][row]),
                suggested=str(audit["suggested"][row]),
                p_clean=float(audit["p_clean"][row]),
                kind=str(audit["kind"][row]),
                reason=str(audit["reason"][row]),
                truth=None if truth is None else audit.class_names[int(truth[place])],
                neighbors=[
                    Neighbor(picture(examples, int(audit.order[r]), SMALL), str(audit["id"][r]), str(audit["given"][r]))
                    for r in near
                ],
            )
        )
    return cards


def is_tiny(found: Findings) -> bool:
    """Whether images have so few pixels that they should be seen."""
    return found.examples is not None and max(found.examples.size) <= TINY


def picture(examples: Examples, place: int, most: int) -> str | None:
    """Return an example as a data URI with at most `most` pixels a side; None of a vector."""
    return png(examples.images[place].cpu().numpy(), most) if examples.kind == "image" else None


def png(image: np.ndarray, most: int) -> str:
    """Return an image as a data URI, scaled down to `most` pixels a side. Shape: (channels, H, W) uint8."""
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture.thumbnail((most, most))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
