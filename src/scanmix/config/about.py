"""What a method says of itself: a line of `scanmix methods`, a section of docs/methods.md, a part of the estimate."""

from __future__ import annotations

from typing import NamedTuple

ALL_AS_GIVEN = "all, as given"
"""What `About.labels` says of methods whose networks learn from every given label."""
GROUPS = {
    "scanmix": ("The paper's own", "ScanMix, and what its paper builds it from"),
    "semi-supervised": ("Semi-supervised", "labels that look wrong are dropped, and their images learned without them"),
    "selection": ("Selection", "labels that look wrong count less or not at all"),
    "correction": ("Correction", "labels that look wrong are replaced by what the network says"),
    "losses": ("Losses", "cross-entropy as the baseline, and losses that bear wrong labels"),
    "regularization": ("Regularization", "the network is held back from memorizing labels"),
    "contrastive": ("Contrastive", "features learned by contrast decide which labels look right"),
    "meta": ("Meta-learning", "a second task teaches how to learn from labels that may be wrong"),
    "frozen features": ("Frozen features", "the features of a pretrained network stay, a classifier on them is fitted"),
    "others": ("Others", "methods that were added"),
}
"""Groups of methods by `About.group`, in the order in which they are listed: a title, and what they share."""


class About(NamedTuple):
    """Facts of a method that do not depend on its settings; every method class has one as `about`."""

    idea: str
    """What the method does, in a line."""
    advice: str
    """When to take it and when not; Markdown."""
    paper: str = "none"
    """Authors, venue and year."""
    labels: str = ALL_AS_GIVEN
    """Which of the given labels it uses."""
    networks: int = 1
    """Networks that are trained."""
    forward_backward: float = 1.0
    """Images that go forward and backward in an epoch, for each training example, all networks together.

    This and the next two are read by `cost` and by `same_every_epoch`. They mean nothing where the method counts its
    own passes and `cost_in_words` says what an epoch costs.
    """
    forward_only: float = 0.0
    """Images that go forward alone in an epoch, for each training example."""
    weak: float = 1.0
    """Weak views that are made in an epoch, for each training example."""
    rows: int = 1
    """Images in the largest step with gradients, for each example of a batch."""
    cost_in_words: str = ""
    """The passes of an epoch as text, where the epochs are not all alike."""
    remembers: bool = False
    """Something is kept of each example from epoch to epoch, so every epoch must see all of them."""
    searches: int = 0
    """Searches for the nearest neighbors of all examples in an epoch; counted where a classifier is fitted at once."""
    needs_trusted: bool = False
    """It learns from labels that are known to be right, and cannot run without any."""
    group: str = "others"
    """What it is listed with: a key of `GROUPS`."""
    measured: bool = False
    """Whether `results/` of the repository has accuracies of it. The others are tested, but not measured there."""
    oracle: str = ""
    """Settings for which the paper's authors used what they knew of the noise, separated by commas."""

    @property
    def cost(self) -> str:
        """Passes of an epoch; cross-entropy has 1, and a backward pass counts as two forward passes."""
        return self.cost_in_words or f"{(3 * self.forward_backward + self.forward_only) / 3:.2g}"
