"""The folder of a run: how it is made, opened and locked."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic.dataclasses
import tomli_w

from scanmix.config import STRICT, Table, UserError, build, dump, file_path, flatten, read_toml, unknown_name
from scanmix.data.examples import Examples
from scanmix.data.noise_report import changed_share
from scanmix.data.readers.origin import check_origin
from scanmix.files import checked, locked, reading, remove_leftovers, write_text, writing
from scanmix.files.lock import LOCK
from scanmix.methods import METHODS
from scanmix.training.metrics import read_lines
from scanmix.training.run import Run
from scanmix.training.settings import RunSettings, as_stored
from scanmix.training.versions import versions

WRITTEN = {
    "": (
        r"run\.toml",
        r"metrics\.jsonl",
        r"labels\.(?:csv|parquet)",
        r"audit\.json",
        r"report\.html",
        r"corrected\.csv",
    ),
    "checkpoint": (r"(?:last|before)\.pt",),
    "model": (r"model\.(?:json|safetensors)",),
    "evidence": (r"evidence\.(?:json|safetensors)",),
    "trajectory": (r"\d{5}\.safetensors",),
    "loggers": (r"\w+\.json",),
}
"""Files of a run folder that are written, by sub-folder: patterns of their names."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class About:
    """The `data` table of `run.toml`: facts about the data for whoever reads the run."""

    name: str
    num_examples: int
    class_names: list[str]
    noise: str | None = None
    asked_noise: float | None = None
    """Share (0..1) of labels that the noise selected."""
    actual_noise: float | None = None
    """Share (0..1) of labels known to be wrong."""


def describe(examples: Examples) -> Table:
    """Return the `data` table of `run.toml`."""
    actual = None
    if examples.true_labels is not None:
        actual = changed_share(examples.true_labels, examples.labels)
    asked = examples.noise.asked_rate if examples.noise else None
    about = About(
        name=examples.name,
        num_examples=len(examples),
        class_names=list(examples.class_names),
        noise=examples.noise.kind if examples.noise else None,
        asked_noise=asked,
        actual_noise=actual,
    )
    return dump(about)


def create_run(settings: RunSettings, examples: Examples, folder: Path | None) -> Run:
    """Return a run without epochs, and write its `run.toml` where there is a folder.

    Raises:
        UserError: the folder holds something else. CannotWrite: it cannot be written.
    """
    about = describe(examples)
    if folder is not None:
        if folder.exists() and not _is_free(folder):
            raise UserError(f"{folder} is there already and is no run; choose another folder with out=")
        table = {**dump(settings), "data": about, "versions": versions()}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "run.toml", tomli_w.dumps(table))
    return Run(settings, about, [], folder=folder)


def _is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but the lock and part files of a run that is just beginning."""
    ours = re.compile(rf"{re.escape(LOCK)}|run\.toml\.\d+(-[0-9a-f]{{8}})?\.part")
    return folder.is_dir() and all(ours.fullmatch(path.name) and path.is_file() for path in folder.iterdir())


@contextmanager
def writer(folder: Path | None, work: str) -> Iterator[None]:
    """Hold the lock of a run folder while the block runs; the folder is made if need be.

    Part files that killed processes left there are removed, and nothing else. `work` tells others what is done there:
    "in training".

    Raises:
        UserError: another process writes there; says which. CannotWrite: the folder cannot be made.
    """
    if folder is None or (folder.exists() and not folder.is_dir()):
        yield  # nothing is written, or `create_run` refuses it
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, work, busy="wait until it is done, stop it, or choose another folder"):
        for part, names in WRITTEN.items():
            remove_leftovers(folder / part, names)
        yield


def open_run(folder: str | Path) -> Run:
    """Open a run folder, finished or not.

    Raises:
        UserError: it is no run folder, its files cannot be read, or it names an unknown method.
    """
    folder = file_path("the run folder", folder)
    if not (folder / "run.toml").is_file():
        raise UserError(f"{folder} is no run folder: it has no run.toml")
    path = folder / "run.toml"
    with reading(path):
        table = read_toml(path)
        about = build(About, table.pop("data", {}), where=str(path), prefix="data.")
        checked(dict[str, str], json.dumps(table.pop("versions", {})))
        settings = build(RunSettings, as_stored(table), where=str(path))
        if settings.method not in METHODS:
            raise unknown_name(f"method in {path}", settings.method, METHODS)
        for split, source in (settings.source or {}).items():
            check_origin(source, f"source.{split}")
    return Run(settings, dump(about), read_lines(folder), folder=folder)


def open_or_create(settings: RunSettings, examples: Examples, folder: Path | None) -> Run:
    """Return the run in `folder` to go on with, or a new one.

    Raises:
        UserError: the folder holds another run, or something else.
    """
    if folder is None or not (folder / "run.toml").is_file():
        return create_run(settings, examples, folder)
    run = open_run(folder)
    if run.finished or run.settings.trusted_fingerprint is None:
        # Later decisions do not change a finished run, nor one that began without (as those of 0.1.0): it ends as it
        # began. What was decided is kept with it.
        settings = dataclasses.replace(settings, trusted_fingerprint=run.settings.trusted_fingerprint)
    if run.settings.config_hash() != settings.config_hash():
        changed = "; ".join(_differences(run.settings.hashed_settings(), settings.hashed_settings()))
        raise UserError(f"{folder} holds another run ({changed}); choose another folder with out=")
    # Device, threads, processes and the place of pretrained weights may change: they are no part of the config hash.
    run.settings = dataclasses.replace(
        run.settings, device=settings.device, threads=settings.threads, processes=settings.processes,
        features=settings.features, finetuned=settings.finetuned, network=settings.network,
    )  # fmt: skip
    return run


def _differences(old: Table, new: Table) -> list[str]:
    """Name what differs between two tables, as in "settings.epochs was 4, is 6"."""
    found: list[str] = []
    before, after = flatten(old), flatten(new)
    for key in sorted(key for key in {*before, *after} if before.get(key) != after.get(key)):
        if key == "trusted_fingerprint":
            found.append("which labels are trusted")
        elif key.startswith("features."):
            found.append(_encoder_difference(key, before.get(key), after.get(key)))
        elif "fingerprint" in key:
            found.append("the test images" if key.startswith("test") else "the training images or labels")
        else:
            found.append(f"{key} was {before.get(key)!r}, is {after.get(key)!r}")
    return list(dict.fromkeys(found))


def _encoder_difference(key: str, before: Any, after: Any) -> str:
    """Name what differs between the encoders of two runs, one of which may have none."""
    if None in (before, after):
        return "features of another number of encoders"
    what = "its encoder had weights with the hash" if key.endswith(".digest") else f"{key} was"
    return f"{what} {str(before)[:16]!r}, now {str(after)[:16]!r}"
