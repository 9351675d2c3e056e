"""Images for the page: from the original file where there is one, else from the array that was trained on."""

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
"""Longest side in pixels of each size that the page may ask for."""
KEPT_BYTES = 64 * 2**20
"""Most bytes of encoded images kept in memory."""


class EncodedImage(NamedTuple):
    """An image as a file in memory; if it is `missing`, a drawing that says why."""

    media_type: str
    content: bytes
    missing: bool = False


class Thumbnails:
    """Encoded images by row of an audit; the most recently used are kept, up to `KEPT_BYTES`."""

    def __init__(self, sources: Sequence[str] | Tensor, places: list[int]) -> None:
        """Take the images of N examples and the position of each row among them.

        Args:
            sources: N files, or pixels (N, channels, H, W) uint8.
            places: for each row of the audit, its position in `sources`.
        """
        self._sources, self._places = sources, places
        self._kept: OrderedDict[tuple[int, str], EncodedImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def get(self, row: int, size: str = "small") -> EncodedImage:
        """Return the image of a row; `size` is a name in `SIDES`. Safe to call from several threads."""
        key = (row, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        image = self._make(self._places[row], SIDES[size])
        with self._lock:
            if not image.missing and key not in self._kept:  # a missing file may appear later
                self._kept[key] = image
                self._bytes += len(image.content)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1].content)
        return image

    def _make(self, place: int, side: int) -> EncodedImage:
        """Read and encode an image; arrays and PNG files stay exact, others become JPEG."""
        source = self._sources[place]
        exact = isinstance(source, Tensor) or Path(source).suffix.lower() == ".png"
        try:
            return _encoded(preview(source, side), "PNG" if exact else "JPEG")
        except (UserError, OSError, ValueError, MemoryError) as error:  # the last three: what encoding may raise
            return _placeholder(visible(str(error)))


def _encoded(image: Image.Image, kind: str) -> EncodedImage:
    """Return an image encoded as "PNG" or "JPEG"."""
    content = io.BytesIO()
    image.save(content, kind, quality=85)
    return EncodedImage(f"image/{kind.lower()}", content.getvalue())


def _placeholder(why: str) -> EncodedImage:
    """Return a drawing with the reason in words, in a gray that can be read on light and dark pages."""
    lines = textwrap.wrap(why, 20, max_lines=4, placeholder=" ...")
    spans = "".join(f'<tspan x="80" dy="18">{html.escape(line)}</tspan>' for line in ("No image:", *lines))
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 160" width="160" height="160">'
        '<rect width="158" height="158" x="1" y="1" fill="none" stroke="#808080" stroke-dasharray="6 4"/>'
        f'<text y="32" font-family="sans-serif" font-size="14" fill="#808080" text-anchor="middle">{spans}</text></svg>'
    )
    return EncodedImage("image/svg+xml", drawing.encode(), missing=True)
