"""Names of classes, files and examples for people to read: what would steer a terminal or hide in a page is shown."""

from __future__ import annotations

import unicodedata

TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff")
"""Letters that turn the direction of others, so that a name may be shown as another one; and what is no letter."""
HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, halves of letters and separators of lines."""


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Return a text that changes nothing but the place where it is shown, as `\x1b[31mcat`.

    Names of classes and files come from strangers. Control characters but those of `keep`, what turns the direction
    of writing, and bytes that are no UTF-8 are spelled out. The result holds nothing that XML or UTF-8 forbids.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or not _is_strange(letter) else _spelled(letter) for letter in text)


def _is_strange(letter: str) -> bool:
    return letter in TURNS or unicodedata.category(letter) in HIDDEN


def _spelled(letter: str) -> str:
    byte = ord(letter) - 0xDC00  # how Python holds a byte of a path that is no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else letter.encode("unicode_escape").decode()
