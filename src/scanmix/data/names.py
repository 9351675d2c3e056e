"""Names of classes, files and examples for people to read: what would steer a terminal or hide in a page is shown."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tabs and line feeds
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\ud800-\udfff\ufffe\uffff]"  # halves of a character, and what is none
)


def visible(text: str) -> str:
    r"""Return a text with its control characters as they are written in programs: an escape becomes `\x1b`.

    The result holds nothing that XML or UTF-8 forbids. Tabs and line feeds stay.
    """
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)
