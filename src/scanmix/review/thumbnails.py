"""Pictures for the page: from the original file where there is one, else from the array that was trained on."""

from __future__ import annotations

import html
import io
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.names import visible
from scanmix.data.readers.images import preview

SIDES = {"small": 160, "large": 900}
"""Longest side in pixels of each size that can be asked for."""
KEPT_BYTES = 64 * 2**20


class Picture(NamedTuple):
    """An encoded picture, or a drawing that says why there is none."""

    media_type: str
    content: bytes
    missing: bool = False


class Thumbnails:
    """Encoded pictures by row of an audit; the last ones that were asked for are kept, up to `KEPT_BYTES`."""

    def __init__(self, sources: Sequence[str] | Tensor, places: list[int]) -> None:
        """Take the files or pixels of N examples and, for each row, its position among them.

        Shape: pixels (N, channels, H, W) uint8.
        """
        self._sources, self._places = sources, places
        self._kept: OrderedDict[tuple[int, str], Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def get(self, row: int, size: str = "small") -> Picture:
        """Return the picture of a row; `size` is a name in `SIDES`."""
        key = (row, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = self._make(self._places[row], SIDES[size])
        with self._lock:
            if not picture.missing and key not in self._kept:  # a missing file may come back
                self._kept[key] = picture
                self._bytes += len(picture.content)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1].content)
        return picture

    def _make(self, place: int, side: int) -> Picture:
        source = self._sources[place]
        exact = isinstance(source, Tensor) or Path(source).suffix.lower() == ".png"
        try:
            return _encoded(preview(source, side), "PNG" if exact else "JPEG")
        except (UserError, OSError, ValueError, MemoryError) as error:  # the last three: what encoding may raise
            return _placeholder(visible(str(error)))


def _encoded(image: Image.Image, kind: str) -> Picture:
    content = io.BytesIO()
    image.save(content, kind, quality=85)
    return Picture(f"image/{kind.lower()}", content.getvalue())


def _placeholder(why: str) -> Picture:
    """A drawing with the reason in words, in a gray that can be read on light and dark."""
    lines = textwrap.wrap(why, 20, max_lines=4, placeholder=" ...")
    spans = "".join(f'<tspan x="80" dy="18">{html.escape(line)}</tspan>' for line in ("No picture:", *lines))
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160" width="160" height="160">'
        '<rect width="158" height="158" x="1" y="1" fill="none" stroke="#808080" stroke-dasharray="6 4"/>'
        f'<text y="32" font-family="sans-serif" font-size="14" fill="#808080" text-anchor="middle">{spans}</text></svg>'
    )
    return Picture("image/svg+xml", drawing.encode(), missing=True)
