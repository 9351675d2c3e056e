"""The contact sheet: the most doubtful labels with their images, and what the nearest others are called.

A feature vector has no image: it and its neighbors are shown by their ids.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET
from scanmix.data.readers.images import preview
from scanmix.report.findings import RunFindings

CARDS = 48
NEIGHBORS = 6
LARGE, SMALL = 96, 40
"""Most pixels of a side: with these even images of pure noise stay far below five megabytes."""
TINY = 64
"""Pictures up to this side are enlarged with square pixels."""
GONE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40" width="40" height="40">'
    b'<path d="M2 2h36v36h-36z" fill="none" stroke="#808080" stroke-dasharray="3 2"/>'
    b'<text x="20" y="18" font-family="sans-serif" font-size="9" fill="#808080" text-anchor="middle">no'
    b'<tspan x="20" dy="10">picture</tspan></text></svg>'
)
"""In a gray that can be read on light and dark."""


class Neighbor(NamedTuple):
    """One of the nearest others, and the label it was given."""

    image: str | None
    id: str
    given: str


class Card(NamedTuple):
    """One label and the evidence against it."""

    rank: int
    image: str | None
    tiny: bool
    """Whether the picture has so few pixels that they should be seen; one that is gone may have been so."""
    name: str
    given: str
    suggested: str
    p_clean: float
    kind: str
    reason: str
    truth: str | None
    neighbors: list[Neighbor]


def contact_sheet(found: RunFindings, count: int = CARDS) -> list[Card]:
    """Return the most doubtful labels that nobody has decided, as cards; none without an audit.

    Without images where there are no pictures.
    """
    audit, pictures, truth = found.audit, found.pictures, found.truth
    if audit is None:
        return []
    cards = []
    for row in range(min(count, int((~audit.decided).sum()))):
        place = int(audit.order[row])
        near = [] if audit.neighbors is None else audit.neighbors[row, :NEIGHBORS].tolist()
        picture = None if pictures is None else _seen(pictures[place], LARGE)
        cards.append(
            Card(
                rank=row + 1,
                image=None if pictures is None else _data_uri(picture),
                tiny=picture is None or max(picture.size) <= TINY,
                name=str(audit["path"][row] or audit["id"][row]),
                given=str(audit["given"][row]),
                suggested=str(audit["suggested"][row]),
                p_clean=float(audit["p_clean"][row]),
                kind=str(audit["kind"][row]),
                reason=str(audit["reason"][row]),
                truth=None if truth is None else _class_name(audit.class_names, int(truth[place])),
                neighbors=[
                    Neighbor(
                        None if pictures is None else _data_uri(_seen(pictures[audit.order[r]], SMALL)),
                        str(audit["id"][r]),
                        str(audit["given"][r]),
                    )
                    for r in near
                ],
            )
        )
    return cards


def _class_name(names: Sequence[str], label: int) -> str:
    return "none of the classes" if label == OPEN_SET else names[label]


def _seen(source: str | Tensor, most: int) -> Image.Image | None:
    """A picture of at most `most` pixels a side; None where it cannot be read."""
    try:
        return preview(source, most)
    except UserError:
        return None


def _data_uri(picture: Image.Image | None) -> str:
    """The picture itself, or a drawing that stands for one that is gone."""
    if picture is None:
        return "data:image/svg+xml;base64," + base64.b64encode(GONE).decode()
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
