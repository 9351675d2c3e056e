"""Evidence from data alone: which labels are wrong, without training anything.

Legend: N examples, D features, P pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.audit.arrays import checked_features
from scanmix.audit.evidence import Evidence, check_comparable, neighborhood, same_images
from scanmix.audit.score import score_labels
from scanmix.audit.table import Audit
from scanmix.config import check_type
from scanmix.data.examples import Examples
from scanmix.progress import StageTick

SIDE = 12
"""Largest side in pixels of the thumbnails that are compared."""
HELD = 1 << 24
"""Most pixels in float32 at once: 64 MB, whatever N is."""


def audit_data(examples: Examples, features: np.ndarray | None = None, tick: StageTick | None = None) -> Audit:
    """Audit the labels of data without a run: what the nearest neighbors of each example say of its class.

    Arguments, shapes and errors as of `evidence_from_examples`; the last stage is "noise model".
    """
    evidence = evidence_from_examples(examples, features, tick)
    if tick is not None:
        tick("noise model", 0, 1, "")
    found = score_labels(evidence)
    if tick is not None:
        tick("noise model", 1, 1, "")
    return found


def evidence_from_examples(
    examples: Examples, features: np.ndarray | None = None, tick: StageTick | None = None
) -> Evidence:
    """Return the evidence of data on which nothing was trained: neighbors, duplicates, and what a person decided.

    Neighbors are found in `features`; without them in the vectors themselves, or in small thumbnails of the images,
    which serve where images of a class look alike pixel by pixel. Memory grows with N x D, D at most 144 x channels + 1
    for images.

    Args:
        examples: images or vectors with their given labels.
        features: (N, D) in the order of the examples, as of `evidence_from_arrays`.
        tick: called with the stages "pixels" and "neighbors" and the number of examples that are done.

    Raises:
        UserError: there are fewer than two examples or classes with examples, or the features do not fit.
    """
    check_type("examples", examples, Examples, "examples, such as scanmix.load returns")
    count = len(examples)
    check_comparable(examples.labels, examples.class_names)
    if features is not None:
        found = torch.from_numpy(checked_features(np.asarray(features), count))
    elif examples.kind == "vector":
        found = torch.from_numpy(checked_features(examples.images.flatten(1).cpu().numpy(), count))
    else:
        found = pixel_features(examples.images, tick)
    counted = None if tick is None else lambda done, total, note: tick("neighbors", done, total, note)
    neighbors, similarity = neighborhood(found, counted)
    return Evidence(
        labels=examples.labels.cpu(),
        class_names=examples.class_names,
        ids=examples.ids,
        paths=examples.paths,
        true_labels=None if examples.true_labels is None else examples.true_labels.cpu(),
        neighbors=neighbors,
        similarity=similarity,
        pictures=same_images(examples.images.cpu()),
        decided=examples.decided,
        excluded=examples.excluded,
    )


def pixel_features(images: Tensor, tick: StageTick | None = None) -> Tensor:
    """Return thumbnails as rows, the mean of each subtracted, and a last column of ones.

    Without its mean a thumbnail does not depend on brightness, and neighbors by angle not on contrast either. The last
    column is small beside any contrast; it makes images of one color, which would have no direction, neighbors of each
    other. Works in chunks: images of any number are never held in float at once.
    Shape: (N, channels, H, W) uint8 -> (N, channels x min(H, 12) x min(W, 12) + 1) float32.
    """
    side = min(SIDE, images.shape[2]), min(SIDE, images.shape[3])
    found = torch.ones(len(images), images.shape[1] * side[0] * side[1] + 1)
    rows = max(1, HELD // max(1, images[:1].numel()))
    for start in range(0, len(images), rows):
        part = found[start : start + rows, :-1]
        small = F.adaptive_avg_pool2d(images[start : start + rows].cpu().float(), side).flatten(1)
        torch.sub(small, small.mean(1, keepdim=True), out=part)
        if tick is not None:
            tick("pixels", min(start + rows, len(images)), len(images), "")
    return found
