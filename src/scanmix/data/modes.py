"""A picture of any Pillow mode to 8 bits, gray or color: what is white is told by this one picture alone.

NumPy and Pillow only. Training on a folder and predicting one of its files later must see the same pixels, so nothing
here looks at other pictures. Where white cannot be told the picture is refused: never black, white or nearly black
by guess.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

GRAY_MODES = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"))
TRANSPARENT_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA"))
FULL = 65535
"""White in 16 bits, unless the file says that fewer are used."""
SHARE = 16
"""A range of which a picture uses no more than one part in so many is in doubt: 12 bits stored in 16 are that dark."""
SLACK = 1e-4
"""Share of white by which floats may lie outside: rounding, far less than a step of 8 bits."""
BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 258, 281
"""TIFF tags."""
FIX = "save them as 8 bit, 0 to 255"


class UnknownRangeError(ValueError):
    """What is white in a picture cannot be told."""


def is_gray(mode: str) -> bool:
    """Whether a picture of this mode has no color in it."""
    return mode in GRAY_MODES


def has_transparency(image: Image.Image) -> bool:
    """Whether some of it may be seen through."""
    return "transparency" in image.info or image.mode in TRANSPARENT_MODES


def is_deep_color(image: Image.Image) -> bool:
    """Whether a file has 16 bits for each channel, of which Pillow keeps the upper 8.

    Once it is loaded, only a TIFF can tell.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return False
    if _whole(_tags(image).get(BITS_PER_SAMPLE)) == 16:
        return True
    layouts = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())]
    return any(";16" in str(layout[0]) or FULL in layout[1:] for layout in layouts if layout)


def plain(image: Image.Image, channels: int, deep: bool = False) -> Image.Image:
    """Any mode to "L" or "RGB": more bits scaled to 8, transparency laid over white.

    White is 1 in floats that do not exceed it, else 255; 65535 in 16 and 32 bits, unless a TIFF says that fewer bits
    are used.

    Args:
        image: a loaded picture; it may be the result.
        channels: 1 or 3.
        deep: whether its file had 16 bits for each color.

    Raises:
        UnknownRangeError: more bits of which the picture uses a sixteenth or less, negative, missing or larger values.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_bytes(image)
    elif deep:
        _check_deep(image)
    if image.mode == "La":  # Pillow has but one way out of it
        image = image.convert("LA")
    if has_transparency(image):
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(white, over).convert("RGB")
    if image.mode == "LAB":
        image = image.convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)  # a copy of a huge picture is huge


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
    seen_through = image.info.get("transparency")
    if isinstance(seen_through, int):  # one value of a 16-bit PNG
        gray[wide == seen_through] = 255
    return Image.fromarray(gray)


def _float_white(low: float, high: float) -> int:
    for white in (1, 255):
        if -SLACK * white <= low and high <= white * (1 + SLACK) and (high * SHARE > white or high == 0):
            return white
    raise UnknownRangeError(f"floating point pixels from {low:g} to {high:g}; {FIX}")


def _integer_white(image: Image.Image, low: int, high: int) -> int:
    known = _told_white(image)
    if known is not None and 0 <= low <= high <= known:
        return known
    if 0 <= low <= high <= FULL and (high * SHARE > FULL or high == 0):
        return FULL
    bits = 32 if image.mode == "I" else 16
    why = "" if low < 0 or high > FULL else ", of which white cannot be told"
    raise UnknownRangeError(f"{bits} bit pixels from {low} to {high}{why}; {FIX}")


def _told_white(image: Image.Image) -> int | None:
    """White as a TIFF tells it, if it does: a number of bits below 16, or the largest number of so many bits."""
    tags = _tags(image)
    bits, largest = _whole(tags.get(BITS_PER_SAMPLE)), _whole(tags.get(MAX_SAMPLE_VALUE))
    if 8 < bits < 16:
        return (1 << bits) - 1
    # Programs write the largest value of the picture there, too: only a whole range says anything of white.
    return largest if 255 <= largest <= FULL and largest & (largest + 1) == 0 else None


def _tags(image: Image.Image) -> Any:
    """What a TIFF says of itself, by number."""
    return getattr(image, "tag_v2", {})


def _whole(value: Any) -> int:
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else 0


def _check_deep(image: Image.Image) -> None:
    """Refuse color of which the upper 8 of 16 bits are nearly nothing: it may be of 12, 10 or 8 bits."""
    bands = [band for band in image.getbands() if band not in "Aa"]
    high = max(int(image.getchannel(band).getextrema()[1]) for band in bands)  # type: ignore[arg-type]  # of one band
    if high * SHARE <= 256:
        what = "16 bit colors, none above a sixteenth of the range, of which white cannot be told"
        raise UnknownRangeError(f"{what}; {FIX}")
