"""Images inside a page: of a few pixels, in the text of the page itself."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.readers.images import preview

MISSING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40" width="40" height="40">'
    b'<path d="M2 2h36v36h-36z" fill="none" stroke="#808080" stroke-dasharray="3 2"/>'
    b'<text x="20" y="18" font-family="sans-serif" font-size="9" fill="#808080" text-anchor="middle">no'
    b'<tspan x="20" dy="10">image</tspan></text></svg>'
)
"""Drawn in place of an image that cannot be read, in a gray that shows on light and dark pages."""


def shown(source: str | Tensor, most: int) -> Image.Image | None:
    """Return an image of at most `most` pixels a side; None if it cannot be read. Shape: pixels (channels, H, W)."""
    try:
        return preview(source, most)
    except UserError:
        return None


def data_uri(image: Image.Image | None) -> str:
    """Return an image, or `MISSING` for None, as a `data:` URI."""
    if image is None:
        return "data:image/svg+xml;base64," + base64.b64encode(MISSING).decode()
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
