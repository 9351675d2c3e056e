"""Show names of classes, files and examples safely: hidden characters are spelled out, paths are as typed here."""

from __future__ import annotations

import unicodedata
from pathlib import Path

DIRECTION = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff")
"""Characters that change the direction of writing, so that a name could be shown as another; and noncharacters."""
HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, surrogates, and separators of lines and paragraphs."""


def visible(text: str, allowed: str = "\n\t") -> str:
    r"""Return a text that is safe to show: an escape character becomes the letters `\x1b`.

    Names of classes and files may come from strangers. Control characters other than those in `keep`, characters that
    change the direction of writing, and bytes that are not UTF-8 are spelled out. The result holds no character that
    XML or UTF-8 forbids.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in allowed or not _is_unsafe(letter) else _spelled(letter) for letter in text)


def from_here(path: str | Path) -> str:
    """Return a path for a page that others may read: relative to the current folder if it lies there, else as it is."""
    full, here = Path(path), Path.cwd()
    return str(full.relative_to(here)) if full.is_absolute() and full.is_relative_to(here) else str(path)


def _is_unsafe(letter: str) -> bool:
    return letter in DIRECTION or unicodedata.category(letter) in HIDDEN


def _spelled(letter: str) -> str:
    byte = ord(letter) - 0xDC00  # Python keeps a byte of a path that is not UTF-8 as this code
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else letter.encode("unicode_escape").decode()
