"""Open-set noise: images of other classes are put under the labels of the data. Legend: N examples."""

from __future__ import annotations

import dataclasses

import torch

from scanmix.config import UserError
from scanmix.data.examples import DECIDED, JSON, OPEN_SET, TRUSTED, Examples
from scanmix.data.noise import select
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition
from scanmix.data.readers.images import resize_all
from scanmix.data.readers.matching import with_channels


def add_open_set(examples: Examples, others: Examples, rate: float, seed: int = 0, step: JSON = None) -> Examples:
    """Replace `int(rate * N)` images by images of other classes; the labels stay, and any label of these is wrong.

    The new images are drawn from `others`, resized and given the same number of channels; too few are repeated. A
    larger rate replaces all images that a smaller rate of the same seed does. An image whose label came as a trusted
    one stays; decisions of a review on images that are replaced are dropped.

    Args:
        examples: the examples whose images are replaced.
        others: examples of other classes.
        rate: share of images to replace, 0..1.
        seed: seed of the draw.
        step: what `readers.reload` must do to make the result again.

    Raises:
        UserError: the rate is outside 0..1, the images are not square, or `others` does not fit the examples.
    """
    if others.kind != examples.kind or (others.kind == "vector" and others.channels != examples.channels):
        raise UserError(f"{others.name!r} holds other {others.kind}s than {examples.name!r}; choose alike ones.")
    if examples.size[0] != examples.size[1]:
        raise UserError(f"only square images can be replaced; those of {examples.name!r} are {examples.size}.")
    chosen, rng = select(len(examples), rate, seed)
    if examples.decided is not None:
        chosen = chosen[(examples.decided != DECIDED.index(TRUSTED)).numpy()[chosen]]
    drawn = others.select(rng.permutation(len(others))[: len(chosen)])
    if examples.kind == "image":
        drawn = resize_all(drawn, examples.size[0])
    places, images = torch.from_numpy(chosen), examples.images.clone()
    images[places] = with_channels(drawn.images, examples.channels)[torch.arange(len(places)) % max(1, len(drawn))]
    truth = (examples.labels if examples.true_labels is None else examples.true_labels).clone()
    truth[places] = OPEN_SET
    decided = None if examples.decided is None else examples.decided.index_fill(0, places, 0)
    report = NoiseReport(
        kind="open-set",
        asked_rate=rate,
        actual_rate=changed_share(truth, examples.labels),
        seed=seed,
        transition=measure_transition(truth, examples.labels, examples.num_classes),
    )
    mixed = dataclasses.replace(
        examples, images=images, paths=None, true_labels=truth, noise=report, source=None, votes=None, annotators=(),
        decided=decided,
    )  # fmt: skip
    return mixed if step is None else dataclasses.replace(mixed, source=examples.source_after(step))
