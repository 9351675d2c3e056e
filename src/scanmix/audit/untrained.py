"""Evidence from data alone: which labels are wrong, without training anything.

Legend: N examples, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from scanmix.audit.arrays import checked_features
from scanmix.audit.evidence import Evidence, check_comparable, checked_prior, components_of, evidence_of, neighborhood
from scanmix.audit.score import score_labels
from scanmix.audit.table import Audit
from scanmix.blocks.pictures import image_features
from scanmix.config import check_type
from scanmix.data.examples import Examples
from scanmix.progress import StageTick, of_stage


def audit_data(
    examples: Examples, features: np.ndarray | None = None, tick: StageTick | None = None,
    class_prior: Mapping[str, float] | None = None,
) -> Audit:  # fmt: skip
    """Audit the labels of data without a run: what nearest neighbors and a linear classifier say of each class.

    Arguments and errors as of `evidence_from_examples`; the last stage is "noise model". Shape: features (N, D) -> a
    table of N rows.
    """
    evidence = evidence_from_examples(examples, features, tick, class_prior)
    if tick is not None:
        tick("noise model", 0, 1, "")
    found = score_labels(evidence)
    if tick is not None:
        tick("noise model", 1, 1, "")
    return found


def evidence_from_examples(
    examples: Examples, features: np.ndarray | None = None, tick: StageTick | None = None,
    class_prior: Mapping[str, float] | None = None,
) -> Evidence:  # fmt: skip
    """Return the evidence of data on which nothing was trained: features, duplicates, and what a person decided.

    Neighbors and principal components are those of `features`; without them those of the vectors themselves, or of
    what the pictures show: patches, or pixels of small ones (`image_features`). Memory grows with N x D, where D is at
    most 128 for pictures of 24 pixels and more a side, and at most 144 x channels + 1 for smaller ones.

    Args:
        examples: images or vectors with their given labels.
        features: (N, D) in the order of the examples, as of `evidence_from_arrays`.
        tick: called with the stages "features of pictures" and "neighbors" and the number of examples that are done.
        class_prior: share of each true class by its name, where it is known; else the likeliest is taken.

    Raises:
        UserError: there are fewer than two examples or classes with examples, or the features or shares do not fit.
    """
    check_type("examples", examples, Examples, "examples, such as scanmix.load returns")
    check_comparable(examples.labels, examples.class_names)
    prior = None if class_prior is None else checked_prior(class_prior, examples.class_names)
    given = None if features is None else np.asarray(features)
    if given is None and examples.kind == "vector":
        given = examples.images.flatten(1).cpu().numpy()
    if given is None:
        found = image_features(examples.images.cpu(), of_stage("features of pictures", tick))
    else:
        found = torch.from_numpy(checked_features(given, len(examples)))
    neighbors, similarity = neighborhood(found, of_stage("neighbors", tick))
    return dataclasses.replace(
        evidence_of(examples), neighbors=neighbors, similarity=similarity, components=components_of(found),
        class_prior=prior,
    )  # fmt: skip
