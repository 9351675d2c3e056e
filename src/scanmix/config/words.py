"""Numbers and commands in words, the same in the terminal, on pages, in cards and in tables."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable


def percent(share: float | None, digits: int = 1, missing: str = "-", unit: str = " %") -> str:
    """Return a share (0..1) in percent, as `81.3 %`.

    Args:
        share: the share; None where it is not known.
        digits: number of decimals.
        missing: returned for None.
        unit: written behind the number; "" in a table whose header names the unit.
    """
    return missing if share is None else f"{100 * share:.{digits}f}{unit}"


def as_typed(words: Iterable[str]) -> str:
    """Return words as one types them at a prompt: quoted where needed, as the shells of this system take it."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def last_ten(epochs: int) -> str:
    """Return which epochs a mean "of the last ten" is of, in a run of so many."""
    return "the last ten epochs" if epochs >= 10 else f"all {epochs} epochs" if epochs > 1 else "the only epoch"


def mean_of_ten(share: float | None, epochs: int, missing: str = "-") -> str:
    """Return a mean (0..1) of the last ten epochs in percent, as a cell: `81.3 %`, or `81.3 % (of 6)` of so few."""
    return percent(share, missing=missing) + (f" (of {epochs})" if share is not None and epochs < 10 else "")
