"""Lines of the Markdown pages that are written here."""

from __future__ import annotations

import re
import textwrap

WIDTH = 120
"""Characters in a line of prose, at most."""


def wrapped(text: str, indent: str = "") -> str:
    """Break a paragraph into lines of at most `WIDTH` characters.

    Text in single backticks is not broken, and no line but the first begins with a percent sign or with what begins an
    item of a list, a heading or a quotation.

    Args:
        text: one paragraph, or one item of a list.
        indent: begins every line but the first.
    """
    whole = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), text)
    whole = re.sub(r" (?=(%|[-+*#>]|\d+[.)])\s)", "\0", whole)
    lines = textwrap.fill(whole, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")
