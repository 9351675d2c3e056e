"""The contact sheet: cards of the most doubtful labels with their images and nearest neighbors.

Vectors have no image; they and their neighbors are shown by their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scanmix.data.examples import OPEN_SET
from scanmix.data.shown import data_uri, shown
from scanmix.report.findings import RunFindings

CARDS = 48
"""Cards on the sheet."""
NEIGHBORS = 6
"""Neighbors on a card."""
LARGE, SMALL = 96, 40
"""Most pixels of a side of an image and of a neighbor; with these the page stays far below five megabytes."""
TINY = 64
"""Images up to this many pixels a side are enlarged with visible square pixels."""


class Neighbor(NamedTuple):
    """A nearest neighbor and its given label."""

    image: str | None
    id: str
    given: str


class Card(NamedTuple):
    """A label and the evidence against it."""

    rank: int
    image: str | None
    tiny: bool
    """Whether the image is so small that its pixels should be visible; true for one that cannot be read."""
    name: str
    given: str
    suggested: str
    p_clean: float
    kind: str
    reason: str
    truth: str | None
    votes: str
    """What annotators said; empty if each label is of one."""
    neighbors: list[Neighbor]


def contact_sheet(found: RunFindings, count: int = CARDS) -> list[Card]:
    """Return cards of the most doubtful labels that nobody has decided; none without an audit.

    Cards have no images if `found.images` is None.
    """
    audit, images, truth = found.audit, found.images, found.truth
    if audit is None:
        return []
    cards = []
    for row in range(min(count, int((~audit.decided).sum()))):
        place = int(audit.order[row])
        near = [] if audit.neighbors is None else audit.neighbors[row, :NEIGHBORS].tolist()
        image = None if images is None else shown(images[place], LARGE)
        cards.append(
            Card(
                rank=row + 1,
                image=None if images is None else data_uri(image),
                tiny=image is None or max(image.size) <= TINY,
                name=str(audit["id"][row]),  # a path would tell the folders of this machine
                given=str(audit["given"][row]),
                suggested=str(audit["suggested"][row]),
                p_clean=float(audit["p_clean"][row]),
                kind=str(audit["kind"][row]),
                reason=str(audit["reason"][row]),
                truth=None if truth is None else _class_name(audit.class_names, int(truth[place])),
                votes=str(audit["votes"][row]) if "votes" in audit else "",
                neighbors=[
                    Neighbor(
                        None if images is None else data_uri(shown(images[audit.order[r]], SMALL)),
                        str(audit["id"][r]),
                        str(audit["given"][r]),
                    )
                    for r in near
                ],
            )
        )
    return cards


def _class_name(names: Sequence[str], label: int) -> str:
    """Return the name of a true label."""
    return "none of the classes" if label == OPEN_SET else names[label]
