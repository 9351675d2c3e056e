"""How many images a run sends through its networks, from what the method counts of itself."""

from __future__ import annotations

from scanmix.methods import Method
from scanmix.model.dynamics import is_due
from scanmix.networks.passes import Passes, Stages


def stages(method: Method, count: int, clean: float) -> Stages:
    """Count the images of a run on `count` training examples, when a share `clean` (0..1) of the labels is kept.

    Stages that handle no image are left out. Measuring accuracy is not counted; see `evaluating`.
    """
    return {name: passes for name, passes in method.passes(count, clean).items() if passes != Passes()}


def evaluating(method: Method, count: int, num_test: int) -> Passes:
    """Count what measuring takes: `num_test` images after every epoch, and the snapshots of all `count` examples."""
    snapshots = sum(is_due(epoch + 1, method.epochs) for epoch in range(method.epochs))
    return Passes(forward_only=method.about.networks * (num_test * method.epochs + count * snapshots))
