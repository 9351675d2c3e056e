"""What a run is trained and tested on: checked before it begins, and loaded again when it goes on."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scanmix.config import UserError, check_type
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.features import AnyEncoder
from scanmix.methods import METHODS, first_part, known_labels
from scanmix.training import Run, RunSettings
from scanmix.training.consensus import with_consensus

WANTED = "Examples, as the parts of the pair that scanmix.load returns"


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run computes from, besides its settings."""

    examples: Examples
    """Images or vectors with given labels."""
    test: Examples | None = None
    """What accuracy is measured on."""
    cache: Path | None = None
    """Folder of self-supervised results and features; by default `default_cache`."""
    encoder: AnyEncoder | None = None
    """Turns the images into the vectors that are learned from; None where there is none, and in all processes but the
    first."""


def check_length(settings: RunSettings, count: int) -> None:
    """Warn where all epochs on `count` examples may go by before the method does what it is known for.

    Durations in steps are many epochs of few examples.
    """
    method = settings.build_method()
    first, found = first_part(method, count)
    if first < method.epochs:
        return
    begins = " and ".join(f"{name} = {value!r}" for name, value in found.items() if value)
    warnings.warn(
        f"in all {method.epochs} epochs {settings.method} may learn the labels as they are: {begins} make {first} "
        f"epochs of {count:,} examples; set more epochs, or a share of them, like {next(iter(found))}=20%",
        stacklevel=4,
    )


def check_data(examples: Examples, test: Examples | None) -> None:
    """Refuse what cannot be trained or tested on.

    Raises:
        UserError: says what is wrong with the examples or with the test data.
    """
    check_type("examples", examples, Examples, WANTED)
    if test is not None:
        check_type("test", test, Examples, WANTED)
    if test is not None and len(test) == 0:
        raise UserError(f"the test set {test.name!r} is empty; leave test out, or give some images")
    if len(examples) < 2 or examples.num_classes < 2:
        has = f"{len(examples)} images of {examples.num_classes} classes"
        raise UserError(f"{examples.name!r} has {has}; it needs at least two of each")
    if test is None:
        return
    for what, ours, theirs in (
        ("kind", examples.kind, test.kind),
        ("class names", examples.class_names, test.class_names),
        ("channels", examples.channels, test.channels),
        ("image size", examples.size, test.size),
    ):
        if ours != theirs:
            raise UserError(f"training and test images differ in their {what}: {ours} and {theirs}")


def reload_data(run: Run, folder: str | Path) -> tuple[Examples, Examples | None]:
    """Load the training and test data of a run again; the test data is None where it had none.

    Raises:
        UserError: the data came from memory, or has changed since.
    """
    source = run.settings.source
    if source is None:
        raise UserError(
            f"the data of {folder} came from memory and cannot be loaded again; "
            f"call scanmix.train(examples, ..., out={str(folder)!r}) with the same data and settings"
        )
    examples, test = with_consensus(reload(source["train"])), reload(source["test"]) if "test" in source else None
    found = (examples.fingerprint(), test.fingerprint() if test else "")
    if found != (run.settings.fingerprint, run.settings.test_fingerprint):
        raise UserError(f"the data of {folder} is not what it was when the run began; bring it back or train anew")
    return examples, test


def trusted_fingerprint(examples: Examples) -> str | None:
    """Return a hex SHA-256 of which labels are known to be right; None if none is."""
    trusted = examples.trusted
    return None if trusted is None else hashlib.sha256(trusted.cpu().numpy().tobytes()).hexdigest()


def check_trusted(settings: RunSettings, examples: Examples) -> None:
    """Refuse a method that learns from trusted labels where there is none, before anything is written.

    Raises:
        UserError: the run trusts no label.
    """
    if METHODS[settings.method].about.needs_trusted:
        known_labels(trusted_labels(examples, settings), settings.method)


def trusted_labels(examples: Examples, settings: RunSettings) -> Tensor | None:
    """Return which labels a run takes for right. Shape: -> (N,) bool; None if it trusts none, whoever has decided some.

    Raises:
        UserError: these are not the labels that it trusted when it began.
    """
    if settings.trusted_fingerprint is None:
        return None
    if settings.trusted_fingerprint != trusted_fingerprint(examples):
        raise UserError("other labels are trusted now than when the run began; bring the decisions back, or train anew")
    return examples.trusted
