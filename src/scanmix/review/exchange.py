"""The labels to decide as a file for another labeling tool, and back: `.json` is Label Studio, `.xml` is CVAT."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np

from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.review import cvat, label_studio
from scanmix.review.answers import Taken, take
from scanmix.review.server import Review

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its machine."""


def write_tasks(review: Review, path: Path, labels: Path, prefix: str | None) -> int:
    """Write the labels that are to be asked and are undecided, and beside them the setup of the tool; return how many.

    Args:
        review: the review.
        path: the file of the tasks, `.json` or `.xml`.
        labels: the file of the classes, as the tool takes them.
        prefix: what stands before the id of an image in its address; None stands for the local files of Label Studio,
            below the name of their folder, and for nothing in CVAT.

    Raises:
        UserError: Label Studio needs a prefix, since the images are no files.
        CannotWrite: a file cannot be written.
    """
    audit, queue = review.audit, review.queue
    asked = queue.order[: queue.length]
    rows = asked[review.decisions.codes[asked] == 0].tolist()
    ids = [audit["id"][row] for row in rows]
    if path.suffix.lower() == ".xml":
        cvat.write(path, audit, rows, [f"{prefix or ''}{name}" for name in ids])
        cvat.write_labels(labels, audit.class_names)
        return len(rows)
    before = f"{LOCAL_FILES}{_folder(audit)}/" if prefix is None else prefix
    addresses = [before + quote(name, errors="surrogateescape") for name in ids]
    label_studio.write(path, audit, rows, addresses, review.title)
    label_studio.write_labels(labels, audit.class_names)
    return len(rows)


def take_answers(review: Review, path: Path) -> Taken:
    """Take over what an export of the other tool says.

    Raises:
        UserError, CannotWrite, OnlyInLog: as `label_studio.read`, `cvat.read` and `answers.take`.
    """
    read = label_studio.read if path.suffix.lower() == ".json" else cvat.read
    return take(review.decisions, review.audit, read(path))


def _folder(audit: Audit) -> str:
    """Return the name of the folder that ids are relative to, as a part of an address."""
    for row in np.flatnonzero(audit["path"] != ""):
        path, name = Path(audit["path"][row]).as_posix(), audit["id"][row]
        if path.endswith(f"/{name}"):
            return quote(Path(path.removesuffix(f"/{name}")).name, errors="surrogateescape")
    raise UserError("these images are no files below one folder; say by --prefix what stands before their names")
