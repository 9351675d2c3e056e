"""Convert an image of any Pillow mode to 8 bits, gray or color.

The value of white is taken from this one image alone: training on a folder and predicting one of its files later must
see the same pixels. If that value cannot be known, the image is refused; a guess could make it all black or white.
This module needs NumPy and Pillow only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

GRAY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"))
TRANSPARENT_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA"))
FULL = 65535
"""White in 16 bits, unless the file says that fewer bits are used."""
SHARE = 16
"""If the largest value of an image is at most 1 / SHARE of white, white is in doubt: 12 bits stored in 16 look so."""
SLACK = 1e-4
"""Share of white by which floats may lie outside the range, from rounding; far less than a step of 8 bits."""
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281
"""Numbers of TIFF tags."""
FIX = "save them as 8 bit, 0 to 255"


class UnknownRangeError(ValueError):
    """The value of white in an image cannot be known."""


def is_gray(mode: str) -> bool:
    """Whether images of this Pillow mode have no color."""
    return mode in GRAY_MODES


def has_transparency(image: Image.Image) -> bool:
    """Whether an image may have transparent pixels."""
    return "transparency" in image.info or image.mode in TRANSPARENT_MODES


def is_deep_color(image: Image.Image) -> bool:
    """Whether a file has 16 bits for each channel, of which Pillow keeps the upper 8.

    Ask before the image is loaded; after that, only a TIFF still tells it.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return False
    if _whole(_tags(image).get(BITS_PER_SAMPLE)) == 16:
        return True
    layouts = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())]
    return any(";16" in str(layout[0]) or FULL in layout[1:] for layout in layouts if layout)


def to_8_bit(image: Image.Image, channels: int, deep: bool = False) -> Image.Image:
    """Convert any mode to "L" or "RGB": more than 8 bits are scaled, and transparency is laid over white.

    White is 1 in floats if none is larger, else 255. It is 65535 in 16 and 32 bits, unless a TIFF says that fewer bits
    are used.

    Args:
        image: a loaded image; the result may be the same object.
        channels: 1 or 3.
        deep: whether its file had 16 bits for each color.

    Raises:
        UnknownRangeError: the image has more than 8 bits and uses a sixteenth of them or less, or has negative, NaN or
            too large values.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_bytes(image)
    elif deep:
        _check_deep(image)
    if image.mode == "La":  # the only conversion that Pillow offers for it
        image = image.convert("LA")
    if has_transparency(image):
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(white, over).convert("RGB")
    if image.mode == "LAB":
        image = image.convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)  # no needless copy: images may be huge


def _to_bytes(image: Image.Image) -> Image.Image:
    """Scale one channel of floats, or of 16 or 32 bits, to 8 bits."""
    wide = np.asarray(image)
    if wide.dtype.kind == "f" and not np.isfinite(wide).all():
        raise UnknownRangeError(f"floating point pixels that are infinite or not a number; {FIX}")
    low, high = (wide.min(), wide.max()) if wide.size else (0, 0)
    white = _float_white(float(low), float(high)) if image.mode == "F" else _integer_white(image, int(low), int(high))
    scaled = wide.astype(np.float32)
    scaled *= 255 / white
    gray = np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8)  # one copy: it may be huge
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the one transparent value of a 16-bit PNG
        gray[wide == transparent] = 255
    return Image.fromarray(gray)


def _float_white(low: float, high: float) -> int:
    for white in (1, 255):
        if -SLACK * white <= low and high <= white * (1 + SLACK) and (high * SHARE > white or high == 0):
            return white
    raise UnknownRangeError(f"floating point pixels from {low:g} to {high:g}; {FIX}")


def _integer_white(image: Image.Image, low: int, high: int) -> int:
    known = _tiff_white(image)
    if known is not None and 0 <= low <= high <= known:
        return known
    if 0 <= low <= high <= FULL and (high * SHARE > FULL or high == 0):
        return FULL
    bits = 32 if image.mode == "I" else 16
    why = "" if low < 0 or high > FULL else ", of which white cannot be told"
    raise UnknownRangeError(f"{bits} bit pixels from {low} to {high}{why}; {FIX}")


def _tiff_white(image: Image.Image) -> int | None:
    """Return white as the tags of a TIFF give it: from fewer than 16 bits, or from a largest value of 2^n - 1."""
    tags = _tags(image)
    bits, largest = _whole(tags.get(BITS_PER_SAMPLE)), _whole(tags.get(MAX_SAMPLE_VALUE))
    if 8 < bits < 16:
        return (1 << bits) - 1
    # Some programs write the largest value of the image there, so only 2^n - 1 is taken for white.
    return largest if 255 <= largest <= FULL and largest & (largest + 1) == 0 else None


def _tags(image: Image.Image) -> Any:
    """Return the tags of a TIFF by number; none for other formats."""
    return getattr(image, "tag_v2", {})


def _whole(value: Any) -> int:
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else 0


def _check_deep(image: Image.Image) -> None:
    """Refuse 16-bit color that is nearly black in its upper 8 bits: it may be 12, 10 or 8 bits stored in 16."""
    bands = [band for band in image.getbands() if band not in "Aa"]
    high = max(int(image.getchannel(band).getextrema()[1]) for band in bands)  # type: ignore[arg-type]  # of one band
    if high * SHARE <= 256:
        what = "16 bit colors, none above a sixteenth of the range, of which white cannot be told"
        raise UnknownRangeError(f"{what}; {FIX}")
