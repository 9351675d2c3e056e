"""Label noise: draw it, read it from a file, write it to a file, and report what came out.

Draws follow the code of DivideMix, as that of ScanMix does: the first `int(rate * N)` positions of one seeded
permutation are selected. A larger rate therefore selects all that a smaller rate of the same seed does.
Legend: N examples, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scanmix.config import UserError, check_type, whole_number
from scanmix.data.examples import JSON, Examples
from scanmix.data.noise.instance import instance_dependent
from scanmix.data.noise.mappings import ASYMMETRIC
from scanmix.data.noise_report import NoiseReport, changed_share, measure_transition
from scanmix.files import check_regular, parse_json, reading, write_json
from scanmix.files.npy import read_array

DRAWN = ("symmetric", "symmetric-exclusive", "asymmetric", "instance")
"""Kinds of noise that are drawn from a rate and a seed; asymmetric noise also needs a mapping of classes."""


def symmetric(labels: Tensor, rate: float, num_classes: int, seed: int, inclusive: bool = True) -> Tensor:
    """Select `int(rate * N)` labels and draw each anew, uniformly.

    An inclusive draw is over all C classes, as in the published codes, so the expected share of wrong labels is
    rate * (C - 1) / C. An exclusive draw is over the C - 1 other classes, so every selected label is wrong.

    Shape: (N,) int64 -> (N,) int64.

    Raises:
        UserError: if the rate is outside 0..1 or an exclusive draw has only one class.
    """
    if not inclusive and num_classes < 2:
        raise UserError("symmetric-exclusive noise needs at least two classes.")
    selected, rng = select(len(labels), rate, seed)
    # Draw for all positions and use those selected: a larger rate then keeps the labels that a smaller one drew.
    if inclusive:
        drawn = rng.integers(num_classes, size=len(labels))[: len(selected)]
    else:
        shift = rng.integers(1, num_classes, size=len(labels))[: len(selected)]
        drawn = (labels.numpy()[selected] + shift) % num_classes
    noisy = labels.clone()
    noisy[torch.from_numpy(selected)] = torch.from_numpy(drawn)
    return noisy


def asymmetric(labels: Tensor, rate: float, mapping: Mapping[int, int], seed: int) -> Tensor:
    """Select `int(rate * N)` labels of the whole set and replace those whose class is in `mapping`.

    Each mapped class loses about the share `rate` of its labels; labels of other classes stay as they are.

    Shape: (N,) int64 -> (N,) int64.

    Raises:
        UserError: if the rate is outside 0..1.
    """
    selected, _ = select(len(labels), rate, seed)
    noisy = labels.numpy().copy()
    chosen = labels.numpy()[selected]
    for old, new in mapping.items():
        noisy[selected[chosen == old]] = new
    return torch.from_numpy(noisy)


def select(count: int, rate: float, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """Select `int(rate * count)` positions; return them and the generator that drew them. Shape: -> (M,) int64.

    Raises:
        UserError: if the rate is outside 0..1.
    """
    if not 0.0 <= rate <= 1.0:
        raise UserError(f"a noise rate must lie between 0 and 1, not {rate}.")
    rng = np.random.default_rng(seed)
    return rng.permutation(count)[: int(rate * count)], rng


def add_noise(
    examples: Examples,
    kind: str,
    rate: float | None = None,
    seed: int = 0,
    mapping: Mapping[int, int] | None = None,
    inclusive: bool = True,
    path: str | Path | None = None,
) -> Examples:
    """Return the examples with noisy labels and a `NoiseReport`; the old labels become the true ones if unknown.

    Labels that came as trusted ones (a column `trusted`, `Examples.trusting`) keep label and trust, so noise of a rate
    changes fewer labels than it selects; the report measures how many. Decisions of a review are dropped.

    Args:
        examples: N examples of C classes.
        kind: "symmetric", "symmetric-exclusive", "asymmetric", "instance" or "file".
        rate: share of labels to select, 0..1; not for "file".
        seed: seed of the draw.
        mapping: {old class: new class} for "asymmetric"; by default that of the data set, if there is one.
        inclusive: whether a symmetric draw may give the old class again.
        path: the file for "file": a JSON list, a JSON object with `noise_labels`, or `.npy`.

    Raises:
        UserError: the kind is unknown, or rate, mapping or path is missing or does not fit the examples.
    """
    check_type("examples", examples, Examples, "Examples, as the parts that scanmix.load returns")
    check_type("kind", kind, str, f"one of {', '.join(DRAWN)}, file")
    if kind == "file":
        if path is None:
            raise UserError("noise of kind 'file' needs a path, for instance path='noise.json'.")
        return load_noise(examples, path)
    if kind not in DRAWN:
        raise UserError(f"unknown noise {kind!r}; known: {', '.join(DRAWN)}, file.")
    if rate is None:
        raise UserError(f"noise {kind!r} needs a rate between 0 and 1, for instance rate=0.5.")
    check_type("rate", rate, (int, float, np.number), "a number between 0 and 1")
    rate, seed = float(rate), whole_number("seed", seed)
    step: dict[str, JSON] = {"kind": kind, "rate": rate, "seed": seed}
    if kind == "asymmetric":
        used = _mapping_for(examples, mapping)
        step["mapping"] = {str(old): new for old, new in used.items()}
        labels = asymmetric(examples.labels, rate, used, seed)
    elif kind == "instance":
        labels = instance_dependent(examples.images, examples.labels, rate, examples.num_classes, seed)
    else:
        inclusive = inclusive and kind == "symmetric"
        kind = "symmetric" if inclusive else "symmetric-exclusive"
        step["kind"] = kind
        labels = symmetric(examples.labels, rate, examples.num_classes, seed, inclusive)
    return _with_noise(examples, labels, kind, rate, seed, step)


def _mapping_for(examples: Examples, mapping: Mapping[int, int] | None) -> dict[int, int]:
    found = ASYMMETRIC.get(examples.name) if mapping is None else mapping
    if found is None:
        raise UserError(f"asymmetric noise has no map for {examples.name!r}; give one, such as mapping={{0: 1, 1: 0}}.")
    # Keys are texts after a source was stored as JSON or TOML.
    whole = {int(old): int(new) for old, new in found.items()}
    for label in (*whole, *whole.values()):
        if not 0 <= label < examples.num_classes:
            raise UserError(f"the noise mapping names class {label}, but classes run 0..{examples.num_classes - 1}.")
    return whole


def _with_noise(
    examples: Examples, labels: Tensor, kind: str, rate: float | None, seed: int | None, step: Mapping[str, JSON]
) -> Examples:
    labels = examples.keep_trusted(labels)
    true_labels = examples.labels if examples.true_labels is None else examples.true_labels
    report = NoiseReport(
        kind=kind,
        asked_rate=rate,
        actual_rate=changed_share(true_labels, labels),
        seed=seed,
        transition=measure_transition(true_labels, labels, examples.num_classes),
    )
    return examples.with_labels(labels, noise=report, step={"noise": step})


def from_file(path: str | Path, num_examples: int, num_classes: int) -> Tensor:
    """Read N labels from a JSON list, a JSON object with `noise_labels` (the files of ScanMix's code) or a `.npy`.

    Shape: -> (N,) int64.

    Raises:
        UserError: if the file cannot be read, or length, type or range do not fit.
    """
    return _checked(_read(Path(path)), Path(path), num_examples, num_classes)


def _read(path: Path) -> Any:
    if path.suffix.lower() == ".npy":
        return read_array(path)
    try:
        check_regular(path)  # reading a pipe could wait for ever
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the noise file {path} cannot be read: {error.strerror or error}.") from None
    with reading(path):
        try:
            return parse_json(content.decode())
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise UserError(
                f"the noise file {path} is neither JSON nor a plain .npy array; write a JSON list of labels."
            ) from None


def _checked(content: Any, path: Path, num_examples: int, num_classes: int) -> Tensor:
    if isinstance(content, dict):
        if "noise_labels" not in content:
            raise UserError(f"the noise file {path} is a JSON object without the key 'noise_labels'.")
        content = content["noise_labels"]
    try:
        labels = np.asarray(content)
    except (ValueError, TypeError, OverflowError):
        labels = np.empty((0, 0))  # ragged: refused below as not flat
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise UserError(f"the noise file {path} must hold one flat list of whole-number labels.")
    if len(labels) != num_examples:
        raise UserError(f"the noise file {path} holds {len(labels)} labels, but there are {num_examples} examples.")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise UserError(
            f"the noise file {path} has labels {int(labels.min())}..{int(labels.max())}, "
            f"but classes run 0..{num_classes - 1}."
        )
    return torch.from_numpy(labels.astype(np.int64))


def save_noise(examples: Examples, path: str | Path) -> None:
    """Write the given labels and the noise report as JSON that `load_noise` and the code of ScanMix can read.

    `closed_noise` lists the positions whose label is wrong (the files of ScanMix list every selected position),
    `open_noise` those of open-set images.

    Raises:
        UserError: if the examples carry no noise report or the file cannot be written.
    """
    open_set = examples.open_set
    if examples.noise is None or examples.true_labels is None or open_set is None:
        raise UserError(f"{examples.name!r} carries no added noise to save; call add_noise first.")
    changed = (examples.labels != examples.true_labels) & ~open_set
    content = {
        "kind": examples.noise.kind,
        "asked_rate": examples.noise.asked_rate,
        "actual_rate": examples.noise.actual_rate,
        "seed": examples.noise.seed,
        "transition": examples.noise.transition,
        "noise_labels": examples.labels.tolist(),
        "closed_noise": changed.nonzero().flatten().tolist(),
        "open_noise": open_set.nonzero().flatten().tolist(),
    }
    write_json(Path(path), content)


def load_noise(examples: Examples, path: str | Path) -> Examples:
    """Return the examples with the labels of a file; actual rate and transition are measured, not read.

    Kind, asked rate and seed are read from a file of `save_noise`.

    Raises:
        UserError: as `from_file`.
    """
    path = Path(path).expanduser().absolute()
    content = _read(path)
    labels = _checked(content, path, len(examples), examples.num_classes)
    stored = content if isinstance(content, dict) else {}
    kind, rate, seed = stored.get("kind"), stored.get("asked_rate"), stored.get("seed")
    return _with_noise(
        examples,
        labels,
        str(kind) if kind in DRAWN or str(kind).startswith("semantic-") else "file",
        rate if isinstance(rate, float) and 0 <= rate <= 1 else None,
        seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        {"kind": "file", "path": str(path)},
    )
