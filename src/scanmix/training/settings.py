"""Settings of a run: a method with its hyper-parameters, and all else that decides what a run computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pydantic.dataclasses

from scanmix.blocks.em import MOST_EXAMPLES
from scanmix.config import (
    STRICT,
    Count,
    Table,
    UserError,
    build,
    check_type,
    dotted_keys,
    dump,
    file_path,
    flatten,
    load_recipe,
    merge,
    overlay,
    recipe_names,
    unknown_name,
    whole_number,
)
from scanmix.data.examples import Examples, Kind
from scanmix.data.views import VIEW_SETTINGS, AnyViewSettings
from scanmix.data.views.feature_views import FeatureViewSettings
from scanmix.distributed.engine import device_name
from scanmix.distributed.process_group import Processes
from scanmix.features import EncoderRecord
from scanmix.methods import METHODS, Method
from scanmix.networks import encoders
from scanmix.networks.encoders import NetworkSettings, settings_class

OTHER_SECTIONS = ("network", "views", "labels", "draw", "monitor")
"""Tables of a recipe, and fields of `RunSettings`, that are not the method's."""
SECTIONS = ("settings", *OTHER_SECTIONS)
"""All tables that a recipe may hold."""
OWN_DATA: dict[Kind, str] = {"image": "folder", "vector": "vectors"}
"""Folder of the recipes for data that has none of its own name."""
FEATURES = "features"
"""Folder of the recipes for features of a pretrained encoder; a method without one there takes that for vectors."""
MOST_THREADS = 4096
DEFAULT, DEFAULT_ON_FEATURES = "scanmix", "propagate"
"""Methods that are taken where none is named: in general, and where a pretrained encoder gives the features."""
CONTROL = "cross_entropy"
"""Method whose recipes serve the methods that have none of their own."""
KEPT_PER_EXAMPLE = {"neighbor_refresh": 1, "loss_memory": 1, "vote_rounds": 0, "truncate": None}
"""Values that a method's settings must have where each epoch draws other examples: it may keep nothing of them."""

NEWER: Table = {
    "scanmix.propagate_classes": False,
    "scanmix.reg_covar": 5e-4,
    "dividemix.reg_covar": 5e-4,
    "scan_dividemix.dividemix.reg_covar": 5e-4,
    "c2d.dividemix.reg_covar": 5e-4,
    "scan_dividemix.warmup_view": "strong",
    "elr_plus.clamp": 1e-4,
    "ssr.include_self": False,
    "ssr_plus.include_self": False,
    "mentormix.weight_statistics": "running",
    "gce.least_probability": 0.5,
    "gce.decide_every": 10,
}
"""Settings of methods that came after 0.1.0, each with the value that does what was done before. Files of 0.1.0 are
read with it, and with it a setting is no part of the config hash, so that older runs go on as they began. For networks
`networks.encoders.NEWER` says the same. A newer setting whose default is None needs no entry. `Labels` is no part of
the hash where it is the default: which labels a run trusts stands in `RunSettings.trusted_fingerprint`, which runs of
0.1.0 do not have."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Labels:
    """How far given labels are believed, whatever the method."""

    trust_decided: bool = True
    """Whether labels that a person has decided, or that came as trusted ones, are known to be right: no method relabels
    them or leaves them out."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Draw:
    """How many of the examples an epoch sees."""

    per_epoch: Count | None = None
    """Examples drawn for each epoch, the same number of each given label (64,000 for Clothing1M); by default all."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class Monitor:
    """What is measured after each epoch besides accuracy; it changes no weight."""

    elbo: Annotated[int, pydantic.Field(ge=2, le=MOST_EXAMPLES)] | None = None
    """Examples on which log-likelihood, ELBO and KL (Eq. 4 of ScanMix) are measured; by default none."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class RunSettings:
    """All that decides what a run computes: on a CPU, two runs with equal settings end with equal weights."""

    method: str
    """A name in `METHODS`."""
    seed: int
    network: NetworkSettings
    views: AnyViewSettings
    settings: Table
    """Every field of the method, defaults and recipe resolved."""
    oracle: bool = False
    """Whether the recipe holds a value that was chosen by someone who knew the noise."""
    recipe: str | None = None
    device: str = "auto"
    threads: int | None = None
    processes: Processes = Processes()
    labels: Labels = Labels()
    draw: Draw = Draw()
    monitor: Monitor = Monitor()
    source: Table | None = None
    """How "train" and "test" load again; None if one of them came from memory."""
    fingerprint: str = ""
    """Hash of the training images and given labels."""
    trusted_fingerprint: str | None = None
    """Hash of which labels are known to be right; None if none is, and in runs of 0.1.0, which trusted none."""
    test_fingerprint: str = ""
    """Hash of the test images and labels; empty without a test set."""
    features: EncoderRecord | None = None
    """The pretrained encoder that turns images into the vectors that are learned from; None where there is none, and in
    runs of 0.1.0."""
    finetuned: EncoderRecord | None = None
    """The pretrained network that the run begins with and trains on; None where there is none, and in runs of 0.1.0."""

    @property
    def given(self) -> Kind:
        """What a person gives, and looks at: images or feature vectors."""
        return self.kind if self.features is None else "image"

    @property
    def kind(self) -> Kind:
        """What is learned from: images or feature vectors."""
        return "vector" if isinstance(self.views, FeatureViewSettings) else "image"

    def build_method(self) -> Method:
        """Return the method with its hyper-parameters.

        Raises:
            UserError: a setting is unknown or out of range.
        """
        return build(METHODS[self.method], self.settings, where=f"settings of {self.method}")

    def hashed_settings(self) -> Table:
        """Return what may not change between two parts of one run. Device, threads and processes may change."""
        found: Table = {
            key: value for key, value in dump(self).items()
            if key not in ("source", "recipe", "oracle", "device", "threads", "processes", "finetuned") and value != {}
        }  # fmt: skip
        if self.labels == Labels():
            del found["labels"]
        if self.features is not None:
            found["features"] = self.features.key
        network = {key: value for key, value in found["network"].items() if encoders.NEWER.get(key, ...) != value}
        if self.finetuned is not None:  # `network.digest` says which weights, wherever they lie
            network = {key: value for key, value in network.items() if key not in ("weights", "pretrained")}
        return found | {"network": network, "settings": _without_newer(found.get("settings", {}), f"{self.method}.")}

    def config_hash(self) -> str:
        """Return the config hash: of `hashed_settings`, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.hashed_settings(), sort_keys=True).encode()).hexdigest()


def as_stored(table: Table) -> Table:
    """Return the table of a run's settings as a file holds it, with what files of older versions lack."""
    network, settings, prefix = table.get("network"), table.get("settings"), f"{table.get('method')}."
    older = nested({key.removeprefix(prefix): value for key, value in NEWER.items() if key.startswith(prefix)})
    filled = {} if not isinstance(network, dict) else {"network": encoders.stored_network(network)}
    return table | filled | ({} if not isinstance(settings, dict) else {"settings": merge(older, settings)})


def _without_newer(table: Table, prefix: str) -> Table:
    """Return settings without newer ones at their old values; the keys of `table` stand below `prefix` in `NEWER`."""
    kept = {key: value for key, value in table.items() if NEWER.get(prefix + key, ...) != value}
    return {
        key: _without_newer(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in kept.items()
    }


def resolve(
    method: str | None, data_name: str, recipe: str | Path | None = None, overrides: Mapping[str, Any] | None = None,
    *, kind: Kind = "image", features: bool = False, seed: int = 0, device: str = "auto", threads: int | None = None,
    processes: Processes | None = None,
) -> RunSettings:  # fmt: skip
    """Lay overrides on a recipe on the defaults, and check every value. It reads the recipe: call it once in a run.

    Args:
        method: a name in `METHODS`; when not given the recipe's, else "scanmix", or "propagate" for `features`.
        data_name: name of the data, by which shipped recipes are found (`Examples.name`, or `name_of` a source).
        recipe: name or path. When not given, the first that is shipped of `<data_name>/any/<method>` and
            `folder/any/<method>` (`vectors/any/<method>`); then those of "cross_entropy", as far as the method has
            such settings; else the defaults.
        overrides: nested as in a recipe (`settings`, `network`, `views`, `labels`); fields of the method may also
            stand at the top, and keys may be dotted (`pretrain.epochs`).
        kind: of the data; it decides which settings network and views have.
        features: a pretrained encoder makes vectors of the images, whatever their name.
        seed: decides every draw of the training.
        device: "auto", "cpu", "cuda" ...; not looked for here.
        threads: of PyTorch while training; its own choice when not given.
        processes: how many there are and how they share the work; by default there is one.

    Raises:
        UserError: an unknown method, recipe or key, or a value out of range; names the nearest valid one.
    """
    if features:
        data_name, kind = FEATURES, "vector"
    recipe = None if recipe is None else str(file_path("recipe", recipe))
    seed = whole_number("seed", seed)
    device = device_name(device)
    threads = None if threads is None else whole_number("threads", threads, 1, MOST_THREADS)
    table: Table = {} if recipe is None else load_recipe(recipe)
    method = _chosen(method, table, features)
    if recipe is None:
        recipe, table = _shipped(method, data_name, kind)
    if table.get("method", method) != method:
        raise UserError(f"recipe {recipe!r} is for method {table['method']!r}, not {method!r}; name the one that fits")
    oracle = bool(table.get("oracle", False))
    table = overlay({key: table[key] for key in SECTIONS if key in table}, _in_sections(overrides or {}))
    where = f"settings of {method}" + (f" (recipe {recipe})" if recipe else "")
    settings = build(METHODS[method], table.get("settings", {}), where=where)
    network = table.get("network", {})
    draw = build(Draw, table.get("draw", {}), where=where, prefix="draw.")
    _check_draw(draw, method, dump(settings), where)
    return RunSettings(
        method=method,
        seed=seed,
        network=build(settings_class(kind, network), network, where=where, prefix="network."),
        views=build(VIEW_SETTINGS[kind], table.get("views", {}), where=where, prefix="views."),
        settings=dump(settings),
        labels=build(Labels, table.get("labels", {}), where=where, prefix="labels."),
        draw=draw,
        monitor=build(Monitor, table.get("monitor", {}), where=where, prefix="monitor."),
        oracle=oracle,
        recipe=recipe,
        device=device,
        threads=threads,
        processes=processes or Processes(),
    )


def _chosen(method: str | None, table: Table, features: bool) -> str:
    """Return the method that is named, else the recipe's, else the default.

    Raises:
        UserError: there is none of this name.
    """
    if method is not None:
        check_type("method", method, str, "the name of a method")
    method = method or table.get("method") or (DEFAULT_ON_FEATURES if features else DEFAULT)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return method


def _shipped(method: str, data_name: str, kind: Kind) -> tuple[str | None, Table]:
    """Return the name and the content of the recipe that is shipped for a method on this data.

    A method without one takes network, views and number of epochs of cross-entropy, so that a new method can be
    compared at once.
    """
    shipped = recipe_names()
    for base in (data_name, OWN_DATA[kind]):
        if (name := f"{base}/any/{method}") in shipped:
            return name, load_recipe(name)
        if (name := f"{base}/any/{CONTROL}") in shipped:
            table = load_recipe(name) | {"method": method}
            known = dotted_keys(METHODS[method])
            settings = {key: value for key, value in table.get("settings", {}).items() if key in known}
            return name, table | {"settings": settings}
    return None, {}


def _check_draw(draw: Draw, method: str, settings: Table, where: str) -> None:
    """Refuse a method that keeps something of each example where each epoch draws other examples."""
    if draw.per_epoch is None:
        return
    if METHODS[method].about.remembers:
        raise UserError(f"{where}: draw.per_epoch takes other examples in each epoch, but {method} keeps some of each")
    for key, value in flatten(settings).items():
        needed = KEPT_PER_EXAMPLE.get(key.rpartition(".")[2], value)
        if value != needed:
            raise UserError(f"{where}: draw.per_epoch takes other examples in each epoch, so {key} must be {needed}")


def source_of(examples: Examples, test: Examples | None) -> Table | None:
    """Return how training and test data load again; None unless all of them do."""
    wanted = {"train": examples} | ({} if test is None else {"test": test})
    found = {split: dict(part.source) for split, part in wanted.items() if part.source is not None}
    return found if len(found) == len(wanted) else None


def _in_sections(overrides: Mapping[str, Any]) -> Table:
    """Nest dotted keys, then move top-level keys that are no section under `settings`."""
    table = nested(overrides)
    sections = {key: table.pop(key) for key in SECTIONS if key in table}
    return merge({"settings": table}, sections)


def nested(values: Mapping[str, Any]) -> Table:
    """Return values with dotted keys as a nested table."""
    found: Table = {}
    for key, value in values.items():
        table: Any = value
        for part in reversed(key.split(".")):
            table = {part: table}
        found = merge(found, table)
    return found
