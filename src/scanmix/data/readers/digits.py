"""The 1,797 8x8 handwritten digits that come with scikit-learn; they need no download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from scanmix.data.examples import Examples

SPLIT_SEED = 0


def read_digits() -> tuple[Examples, Examples]:
    """Load the digits in a fixed, stratified split of 1,437 training and 360 test images.

    Shape: images (1437, 1, 8, 8) and (360, 1, 8, 8) uint8; values 0..16 are scaled to 0..255.
    """
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    # After shuffling and sorting by class, every fifth image is a fifth of each class, to within one image.
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[by_class[::5]] = True
    whole = Examples(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        class_names=tuple(str(digit) for digit in range(10)),
        ids=tuple(f"digits/{i:04d}" for i in range(len(labels))),
        name="digits",
        flip=False,  # a mirrored 2 is not a 2
    )
    return whole.select(~is_test), whole.select(is_test)
