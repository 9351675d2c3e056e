"""Open-set noise: images of foreign classes under the labels of the data. Legend: N examples, M foreign ones."""

from __future__ import annotations

import dataclasses

import torch

from scanmix.config import UserError
from scanmix.data.examples import JSON, OPEN_SET, Examples, NoiseReport, changed_share, measure_transition
from scanmix.data.noise import select
from scanmix.data.readers.images import resize_all
from scanmix.data.readers.matching import with_channels


def add_open_set(examples: Examples, foreign: Examples, rate: float, seed: int = 0, step: JSON = None) -> Examples:
    """Replace `int(rate * N)` images by foreign ones; the labels stay, and are wrong whatever they say.

    Foreign images are drawn, resized and given the same number of channels; where there are fewer, all come again.
    The selections of a seed are nested over rates. `step` is what loads the result again.

    Raises:
        UserError: the rate is outside 0..1, or the foreign examples are of another kind.
    """
    if foreign.kind != examples.kind or (foreign.kind == "vector" and foreign.channels != examples.channels):
        raise UserError(f"{foreign.name!r} holds other {foreign.kind}s than {examples.name!r}; choose alike ones.")
    if examples.size[0] != examples.size[1]:
        raise UserError(f"only square images can be replaced; those of {examples.name!r} are {examples.size}.")
    chosen, rng = select(len(examples), rate, seed)
    strange = foreign.select(rng.permutation(len(foreign))[: len(chosen)])
    if examples.kind == "image":
        strange = resize_all(strange, examples.size[0])
    places, images = torch.from_numpy(chosen), examples.images.clone()
    images[places] = with_channels(strange.images, examples.channels)[torch.arange(len(places)) % max(1, len(strange))]
    truth = (examples.labels if examples.true_labels is None else examples.true_labels).clone()
    truth[places] = OPEN_SET
    report = NoiseReport(
        kind="open-set",
        asked_rate=rate,
        actual_rate=changed_share(truth, examples.labels),
        seed=seed,
        transition=measure_transition(truth, examples.labels, examples.num_classes),
    )
    kept = dataclasses.replace(examples, images=images, paths=None, true_labels=truth, noise=report, source=None)
    return kept if step is None else dataclasses.replace(kept, source=examples.source_after(step))
