"""What is known of each label: from a run of any method, or from arrays that somebody brings.

Legend: N examples, C classes, D features, P networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from scanmix.blocks.doubt import EVEN
from scanmix.config import UserError
from scanmix.data.duplicates import exact_groups
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.runs import Run
from scanmix.trajectory import Snapshot, load_trajectory


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """All that is known of N labels, in the order of the training data."""

    labels: Tensor
    """(N,) int64, given."""
    probs: Tensor
    """(P, N, C) class probabilities of each network."""
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    features: Tensor | None = None
    """(N, D): whose neighbors are asked; without them nobody is."""
    snapshots: Sequence[Snapshot] = ()
    set_aside: Tensor | None = None
    """(N,) bool: labels from which nothing was learned in the last epoch."""
    label_free: bool = False
    """No label was learned from at all."""
    duplicates: Mapping[int, tuple[int, ...]] | None = None
    """Position -> positions of the same picture under another label."""


def evidence_of(run: Run, examples: Examples | None = None) -> Evidence:
    """Collect what a finished run of any method knows of its training labels.

    Args:
        run: the run.
        examples: what it was trained on; loaded again when not given.

    Raises:
        UserError: the run is unfinished, or its training data cannot be loaded again as it was.
    """
    model = run.model
    examples = training_data(run) if examples is None else examples
    folder = run.folder
    snapshots = run.snapshots if folder is None else load_trajectory(folder, len(run.metrics))
    return Evidence(
        labels=examples.labels.cpu(),
        probs=model.member_logits(examples).softmax(2),
        class_names=examples.class_names,
        ids=examples.ids,
        paths=examples.paths,
        features=model.features(examples),
        snapshots=snapshots,
        set_aside=_set_aside(run, snapshots),
        label_free=model.label_free,
        duplicates=same_pictures(examples),
    )


def training_data(run: Run) -> Examples:
    """Return what a run was trained on, loaded again if need be.

    Raises:
        UserError: it came from memory, or is not what it was.
    """
    if run.examples is not None:
        return run.examples
    source = run.settings.source
    if source is None:
        raise UserError(f"the data of {run.folder} came from memory; call run.audit(examples) with the same examples")
    examples = reload(source["train"])
    if examples.fingerprint() != run.settings.fingerprint:
        raise UserError(f"the data of {run.folder} is not what it was when the run began; bring it back")
    return examples


def same_pictures(examples: Examples) -> dict[int, tuple[int, ...]]:
    """Return, for each example whose pixels stand under another label as well, where: position -> positions."""
    labels = examples.labels.tolist()
    return {
        i: tuple(j for j in group if labels[j] != labels[i])
        for group in exact_groups(examples.images.cpu()) if len({labels[j] for j in group}) > 1
        for i in group
    }  # fmt: skip


def _set_aside(run: Run, snapshots: Sequence[Snapshot]) -> Tensor | None:
    """Labels that every network was told not to believe in the last epoch; None where no method divides."""
    p_clean = snapshots[-1].p_clean if snapshots else None
    if p_clean is None:
        return None
    return (p_clean <= getattr(run.settings.build_method(), "clean_threshold", EVEN)).all(0)
