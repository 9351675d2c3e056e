"""What a finished run knows of its training labels: kept in its folder, else seen again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from scanmix.audit.evidence import Evidence, collect
from scanmix.audit.kept import has_evidence, load_evidence, save_evidence
from scanmix.blocks.doubt import EVEN
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.files import locked
from scanmix.methods import METHODS
from scanmix.runs import Run
from scanmix.trajectory import Snapshot, load_trajectory


def evidence_of(run: Run, examples: Examples | None = None) -> Evidence:
    """Collect what a finished run of any method knows of its training labels.

    What the folder keeps is taken as it is, without the images. A run in memory, or of an older version, looks at
    its training data again.

    Args:
        run: the run.
        examples: what it was trained on, to be looked at whatever is kept.

    Raises:
        UserError: the run is unfinished, what it kept is damaged, or it kept nothing and its training data cannot be
            loaded again as it was.
    """
    folder = run.folder
    if examples is None and folder is not None and run.finished and has_evidence(folder):
        found = load_evidence(folder)
        if found.class_names != run.class_names:
            raise UserError(
                f"{folder / 'evidence'} is of other classes than {folder / 'run.toml'}; one of them is not as it was "
                "written: bring it back"
            )
    else:
        model = run.model  # an unfinished run is told before its data is read
        examples = training_data(run) if examples is None else examples
        found = collect(model.look(examples), examples)
    snapshots = run.snapshots if folder is None else load_trajectory(folder, len(run.metrics))
    return dataclasses.replace(
        found,
        snapshots=snapshots,
        set_aside=_set_aside(run, snapshots),
        label_free=METHODS[run.settings.method].label_free,
    )


def remember_decisions(run: Run, examples: Examples) -> bool:
    """Keep with a finished run what a person has decided since; return whether there was anything new.

    For a run that was asked for again with the same labels, of which more have been looked at: nothing is to be
    trained, but the list of what to look at next is another.

    Raises:
        UserError: what the run kept is damaged or cannot be written.
    """
    folder = run.folder
    if folder is None or examples.decided is None or not has_evidence(folder):
        return False
    with locked(folder, "being audited"):
        found = load_evidence(folder)
        if found.ids != examples.ids or (found.decided is not None and torch.equal(found.decided, examples.decided)):
            return False
        save_evidence(folder, dataclasses.replace(found, decided=examples.decided, excluded=examples.excluded))
        run.audit().to_csv(folder / "labels.csv")
    return True


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


def pictures_of(run: Run, evidence: Evidence) -> Sequence[str] | Tensor:
    """Return where the picture of each example is to be seen: N files, or pixels where there never were files.

    Shape: pixels (N, channels, H, W) uint8.

    Raises:
        UserError: there never were files, and the training data cannot be loaded again.
    """
    return evidence.paths or training_data(run).images.cpu()


def _set_aside(run: Run, snapshots: Sequence[Snapshot]) -> Tensor | None:
    """Labels that every network was told not to believe in the last epoch; None where no method divides."""
    p_clean = snapshots[-1].p_clean if snapshots else None
    if p_clean is None:
        return None
    return (p_clean <= getattr(run.settings.build_method(), "clean_threshold", EVEN)).all(0)
