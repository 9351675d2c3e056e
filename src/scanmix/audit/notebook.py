"""An audit as a notebook shows it: what holds for all labels, and the most doubtful ones with their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from torch import Tensor

from scanmix.blocks.label_quality import RateInterval
from scanmix.config import percent
from scanmix.data.names import visible
from scanmix.data.shown import data_uri, shown

ROWS = 8
"""Labels that are shown."""
SIDE = 64
"""Most pixels of a side of an image."""
HEAD = ("given", "suggested", "p(right)", "why")
STYLE = "border-collapse:collapse;font-size:90%"
CELL = "padding:2px 10px 2px 0;text-align:left"


def audit_html(
    columns: Mapping[str, np.ndarray], order: np.ndarray, doubtful: int, rate: RateInterval,
    images: Sequence[str] | Tensor | None = None,
) -> Markup:  # fmt: skip
    """Return an audit as HTML.

    Args:
        columns: of the audit, its rows sorted from the most doubtful label to the surest.
        order: (N,) position of each row in the training data.
        doubtful: how many labels look wrong.
        rate: estimated share of wrong labels.
        images: files or pixels, (N, C, H, W) uint8, in the order of the training data; None: the files of the audit.
    """
    total = len(order)
    parts = [
        Markup("<p><b>{} of {} labels look wrong.</b> Wrong labels: {} ({} to {}).</p>").format(
            f"{doubtful:,}", f"{total:,}", percent(rate.value), percent(rate.low), percent(rate.high)
        )
    ]
    files = [str(path) for path in columns["path"][:ROWS]]
    pictured = images is not None or any(files)
    heads = ("",) * pictured + HEAD
    head = Markup("").join(Markup('<th style="{}">{}</th>').format(CELL, name) for name in heads)
    rows = []
    for row in range(min(ROWS, total)):
        cells = [visible(str(columns[name][row]), allowed="") for name in ("given", "suggested")]
        cells += [f"{columns['p_clean'][row]:.4f}", visible(str(columns["reason"][row]), allowed="")]
        image = Markup("")
        if pictured:
            source = files[row] if images is None else images[int(order[row])]
            name = visible(files[row] or str(columns["id"][row]), allowed="")
            image = Markup('<td style="{}"><img alt="{}" title="{}" src="{}"></td>').format(
                CELL, name, name, data_uri(shown(source, SIDE))
            )
        words = Markup("").join(Markup('<td style="{}">{}</td>').format(CELL, cell) for cell in cells)
        rows.append(Markup("<tr>{}{}</tr>").format(image, words))
    table = Markup('<table style="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>')
    return Markup("").join([*parts, table.format(STYLE, head, Markup("").join(rows))])
