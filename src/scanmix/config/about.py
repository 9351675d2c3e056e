"""What a method says of itself: a line of `scanmix methods`, a section of docs/methods.md, a share of a forecast."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """One of these stands in the class of every method, and nothing else has to be told of a new one."""

    idea: str
    """What it does, in a line."""
    advice: str
    """When to take it and when not; Markdown."""
    paper: str = "none"
    """Authors, venue and year."""
    labels: str = "all, as given"
    """Which of them it uses."""
    nets: int = 1
    """Networks that are trained."""
    learn: float = 1.0
    """Images that go forward and backward in an epoch, for each training example, all networks together."""
    look: float = 0.0
    """Images that go forward only."""
    views: float = 1.0
    """Weak views that are made."""
    rows: int = 1
    """Images in the largest step, for each of `batch_size`."""
    passes: str = ""
    """The cost in words, where the four numbers above do not hold; `doctor/passes.py` then counts it."""
    remembers: bool = False
    """Something is kept of each example from epoch to epoch, so every epoch must see all of them."""
    oracle: str = ""
    """Fields for which the paper's authors used what they knew of the noise."""

    @property
    def cost(self) -> str:
        """Passes in an epoch; that of cross-entropy is 1, and a backward pass counts as two forward ones."""
        return self.passes or f"{(3 * self.learn + self.look) / 3:.2g}"
