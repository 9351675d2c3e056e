"""What an epoch costs that divides the labels: DivideMix's, and ScanMix's first half."""

from __future__ import annotations

from typing import Literal

from scanmix.networks.passes import Passes


def divided_passes(
    count: int, clean: float, batch_size: int, minimum_steps: int, view: Literal["weak", "strong"], trained: int
) -> Passes:
    """Count an epoch: both networks see all images, then each trained one takes a pass over its clean set.

    A step holds two views of each labeled and each unlabeled image. The network in training predicts targets for all
    of them, the other network for the unlabeled ones.

    Args:
        count: training examples.
        clean: share (0..1) of the labels that are kept.
        batch_size: labeled images of a step, and unlabeled ones.
        minimum_steps: the clean set is passed over again until so many steps are done.
        view: which views are made.
        trained: networks that are trained, 1 or 2.
    """
    labeled = max(1, round(clean * count))
    steps = -(-labeled // batch_size)
    again = passed_over(count, clean, batch_size, minimum_steps) // labeled
    unlabeled = 2 * again * steps * min(batch_size, count - labeled)
    rows = 2 * again * labeled + unlabeled
    each = Passes(forward_only=rows + unlabeled, forward_backward=rows) + Passes(**{view: rows})
    return Passes(forward_only=2 * count) + each * trained


def passed_over(count: int, clean: float, batch_size: int, minimum_steps: int) -> int:
    """Return how many labeled images such an epoch has, of one view each; of `count`, a share `clean` is labeled."""
    labeled = max(1, round(clean * count))
    steps = -(-labeled // batch_size)
    return labeled * max(1, -(-minimum_steps // steps))
