"""A run: what was asked for, what happened in each epoch, and the model that came out; in memory or on disk.

Legend: N examples, C classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic.dataclasses
import tomli_w
import torch

from scanmix.checkpoint import Model, Pixels, load_model
from scanmix.config import (
    STRICT,
    Table,
    UserError,
    build,
    dump,
    load_recipe,
    merge,
    read_toml,
    recipe_names,
    unknown_name,
)
from scanmix.data.examples import Examples, changed_share
from scanmix.data.views import ViewSettings
from scanmix.methods import METHODS, Method
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.artifacts import write_aside
from scanmix.trajectory import Snapshot

SECTIONS = ("settings", "network", "views")
Line = dict[str, Any]
"""One epoch in numbers, as one line of `metrics.jsonl`."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class RunSettings:
    """All that decides what a run computes: two runs with equal settings end with equal weights (CPU)."""

    method: str
    """A name in `METHODS`."""
    seed: int
    network: PreActResNetSettings
    views: ViewSettings
    settings: Table
    """Every field of the method, defaults and recipe resolved."""
    oracle: bool = False
    """The recipe holds a value chosen by someone who knew the noise."""
    recipe: str | None = None
    device: str = "auto"
    threads: int | None = None
    source: Table | None = None
    """How "train" and "test" load again; None when one of them came from memory."""
    fingerprint: str = ""
    """Of the training images and given labels."""
    test_fingerprint: str = ""
    """Of the test images and labels; empty without a test set."""

    def build_method(self) -> Method:
        """Return the method with its hyper-parameters."""
        return build(METHODS[self.method], self.settings, where=f"settings of {self.method}")

    def decisive(self) -> Table:
        """Return what may not change between two parts of one run (where it is computed, may)."""
        return {
            key: value for key, value in dump(self).items()
            if key not in ("source", "recipe", "oracle", "device", "threads")
        }  # fmt: skip

    def identity(self) -> str:
        """Return a hash of `decisive`."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()


def resolve(
    method: str | None, data_name: str, recipe: str | None = None, overrides: Mapping[str, Any] | None = None,
    *, seed: int = 0, device: str = "auto", threads: int | None = None,
) -> RunSettings:  # fmt: skip
    """Lay overrides on a recipe on the defaults, and check every value.

    Overrides are nested as in a recipe (`settings`, `network`, `views`); fields of the method may also stand
    at the top, and keys may be dotted (`pretrain.epochs`). Without a `recipe` the first that is shipped of
    `<data_name>/any/<method>` and `folder/any/<method>` is taken, else the defaults. Without a `method` it is
    the recipe's, else "scanmix".

    Raises:
        UserError: an unknown method, recipe or key, or a value out of range; names the nearest valid one.
    """
    table: Table = {}
    if recipe is not None:
        table = load_recipe(recipe)
        method = method or table.get("method")
    method = method or "scanmix"
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if recipe is None:
        shipped = recipe_names()
        recipe = next((name for base in (data_name, "folder") if (name := f"{base}/any/{method}") in shipped), None)
        table = load_recipe(recipe) if recipe else {}
    if table.get("method", method) != method:
        raise UserError(f"recipe {recipe!r} is for method {table['method']!r}, not {method!r}; name the one that fits")
    oracle = bool(table.get("oracle", False))
    table = merge({key: table[key] for key in SECTIONS if key in table}, _in_sections(overrides or {}))
    where = f"settings of {method}" + (f" (recipe {recipe})" if recipe else "")
    settings = build(METHODS[method], table.get("settings", {}), where=where)
    return RunSettings(
        method=method,
        seed=seed,
        network=build(PreActResNetSettings, table.get("network", {}), where=where, prefix="network."),
        views=build(ViewSettings, table.get("views", {}), where=where, prefix="views."),
        settings=dump(settings),
        oracle=oracle,
        recipe=recipe,
        device=device,
        threads=threads,
    )


def _in_sections(overrides: Mapping[str, Any]) -> Table:
    """Nest dotted keys, then put what stands at the top and is no section under `settings`."""
    nested: Table = {}
    for key, value in overrides.items():
        table: Any = value
        for part in reversed(key.split(".")):
            table = {part: table}
        nested = merge(nested, table)
    sections = {key: nested.pop(key) for key in SECTIONS if key in nested}
    return merge({"settings": nested}, sections)


class NoiseRates(NamedTuple):
    """Shares of wrong labels; None where nobody knows."""

    asked: float | None
    actual: float | None
    estimated: float | None


class Run:
    """One training, finished or not. `folder` is None when nothing was to be kept."""

    def __init__(
        self, settings: RunSettings, about: Mapping[str, Any], metrics: list[Line], *,
        folder: Path | None = None, model: Model | None = None,
    ) -> None:  # fmt: skip
        """Take over what is known; `about` is the `data` table of `run.toml`."""
        self.settings = settings
        self.about = dict(about)
        self.metrics = metrics
        self.folder = folder
        self.snapshots: list[Snapshot] = []
        """Of a run in memory; where there is a folder, `load_trajectory` reads them."""
        self._model = model

    def __repr__(self) -> str:
        """Say what it is and how well it went."""
        last = self.last_accuracy
        result = "" if last is None else f", accuracy {last:.1%}"
        return f"<Run {self.settings.method} on {self.about['name']}: {len(self.metrics)} epochs{result}>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; class i is `class_names[i]`."""
        return tuple(self.about["class_names"])

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        return self._model is not None or (self.folder is not None and (self.folder / "model" / "model.json").is_file())

    @property
    def model(self) -> Model:
        """The trained model, read from the folder when first asked for.

        Raises:
            UserError: the run is not finished.
        """
        if self._model is None:
            if self.folder is None or not self.finished:
                raise UserError(f"the run in {self.folder} is unfinished; `scanmix resume {self.folder}` goes on")
            self._model = load_model(self.folder)
        return self._model

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy (0..1) after each epoch; empty without a test set."""
        return [line["accuracy"] for line in self.metrics if "accuracy" in line]

    @property
    def best_accuracy(self) -> float | None:
        """Best test accuracy of any epoch: chosen by the test set, so an upper bound, not a promise."""
        return max(self.accuracies, default=None)

    @property
    def last_accuracy(self) -> float | None:
        """Test accuracy after the last epoch."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def last10_accuracy(self) -> float | None:
        """Mean test accuracy of the last ten epochs."""
        return statistics.fmean(self.accuracies[-10:]) if self.accuracies else None

    @property
    def noise(self) -> NoiseRates:
        """Share of wrong labels: asked for, actual, and as the last epoch estimated it."""
        estimates = [line["estimated_noise"] for line in self.metrics if "estimated_noise" in line]
        return NoiseRates(
            self.about.get("asked_noise"), self.about.get("actual_noise"), estimates[-1] if estimates else None
        )

    def predict_proba(self, images: Pixels) -> np.ndarray:
        """Class probabilities of uint8 images (or Examples). Shape: (N, C, H, W) -> (N, C) float32."""
        return self.model.predict_proba(images)

    def predict(self, images: Pixels) -> np.ndarray:
        """Likeliest class of uint8 images (or Examples). Shape: (N, C, H, W) -> (N,) int64."""
        return self.model.predict(images)

    def adopt(self, model: Model) -> None:
        """Take the model of the training that has just ended."""
        self._model = model

    def record(self, line: Line) -> None:
        """Add an epoch to the metrics and, where there is a folder, to the disk before returning."""
        self.metrics.append(line)
        if self.folder is not None:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def keep_epochs(self, epochs: int) -> None:
        """Forget every line after the first `epochs` epochs: the checkpoint does not know of them."""
        self.metrics = self.metrics[:epochs]
        if self.folder is not None:
            text = "".join(json.dumps(line) + "\n" for line in self.metrics)
            path = self.folder / "metrics.jsonl"
            write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def describe(examples: Examples) -> Table:
    """Return the `data` table of `run.toml`: what a reader of the run may want to know of its data."""
    actual = None
    if examples.true_labels is not None:
        actual = changed_share(examples.true_labels, examples.labels)
    asked = examples.noise.asked_rate if examples.noise else None
    about = {
        "name": examples.name,
        "num_examples": len(examples),
        "class_names": list(examples.class_names),
        "noise": examples.noise.kind if examples.noise else None,
        "asked_noise": asked,
        "actual_noise": actual,
    }
    return {key: value for key, value in about.items() if value is not None}


def create_run(settings: RunSettings, examples: Examples, folder: Path | None) -> Run:
    """Return a run without epochs; write its `run.toml`.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    about = describe(examples)
    if folder is not None:
        if folder.exists() and not _is_free(folder):
            raise UserError(f"{folder} is there already and is no run; choose another folder with out=")
        table = {**dump(settings), "data": about, "versions": _versions()}
        text = tomli_w.dumps(table)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_aside(folder / "run.toml", lambda aside: aside.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise UserError(f"the run folder {folder} cannot be written: {error.strerror}") from None
    return Run(settings, about, [], folder=folder)


def _is_free(folder: Path) -> bool:
    """Whether nothing is in a folder but what a killed process may leave of `run.toml`."""
    return folder.is_dir() and all(path.name.endswith(".part") for path in folder.iterdir())


def open_run(folder: str | Path) -> Run:
    """Open a run folder, finished or not.

    Raises:
        UserError: it is no run folder, or its files cannot be read.
    """
    folder = Path(folder)
    if not (folder / "run.toml").is_file():
        raise UserError(f"{folder} is no run folder: it has no run.toml")
    table = read_toml(folder / "run.toml")
    about = table.pop("data", {})
    table.pop("versions", None)
    settings = build(RunSettings, table, where=str(folder / "run.toml"))
    if settings.method not in METHODS:
        raise unknown_name(f"method in {folder}/run.toml", settings.method, METHODS)
    return Run(settings, about, _read_metrics(folder / "metrics.jsonl"), folder=folder)


def _read_metrics(path: Path) -> list[Line]:
    """All whole lines; a line cut short by a crash is not one."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _versions() -> Table:
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    try:
        found["scanmix"] = metadata.version("scanmix")
    except metadata.PackageNotFoundError:
        found["scanmix"] = "not installed"
    commit = _git_commit(Path(__file__))
    return found | ({"git": commit} if commit else {})


def _git_commit(file: Path) -> str | None:
    """Commit of the checkout that `file` is tracked in, "-dirty" if anything there was changed; else None."""
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        name = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
        return subprocess.run(name, capture_output=True, check=True, text=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
