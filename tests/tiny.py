"""The settings with which tests train every method in seconds, on 40 to 80 images of 8x8 pixels.

A method whose settings are called `epochs`, `batch_size` and `learning_rate`, and whose other defaults fit so few
images, needs no entry here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scanmix.config import Table, build, merge
from scanmix.data.batches import TrainingData
from scanmix.data.corrections import apply_corrections
from scanmix.methods import METHODS, Method

NETWORK: Table = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}
"""For tests that train through `scanmix.train`."""


def settings(name: str, epochs: int = 3, warmup: int = 1, stage_epochs: int = 2, **more: Any) -> Table:
    """Settings of a method, as overrides of `scanmix.train`.

    `warmup` is in epochs, and `stage_epochs` those of each label-free stage; `more` is laid over the rest.
    """
    plain: Table = {"epochs": epochs, "batch_size": 32, "learning_rate": 0.05}
    divide: Table = {
        "epochs": epochs, "warmup": warmup, "batch_size": 16, "learning_rate": 0.05, "warmup_rate": 0.05,
        "unlabeled_weight": 5.0, "unlabeled_ramp": 4.0, "loss_memory": 2,
    }  # fmt: skip
    features: Table = {
        "epochs": stage_epochs, "batch_size": 32, "learning_rate": 0.1, "contrast_temperature": 0.2,
        "projection_size": 8,
    }  # fmt: skip
    stages: Table = {
        "pretrain": features,
        "clustering": {"epochs": stage_epochs, "batch_size": 32, "learning_rate": 1e-3},
        "num_neighbors": 5,
    }
    entries: dict[str, Table] = {
        "forward": {**plain, "estimation": 1},
        "backward": {**plain, "estimation": 1},
        "decoupling": {**plain, "warmup": 1},
        "co_teaching": {**plain, "gradual": 2},
        "co_teaching_plus": {**plain, "gradual": 2, "alike": 1},
        "incv": {**plain, "rounds": 2, "gradual": 1, "candidates_after": 0, "candidates_after_severe": 0},
        "d2l": {**plain, "begin": 0, "window": 1},
        "m_correction": {**plain, "begin": 1},
        "m_correction_sh": {**plain, "begin": 1},
        "pencil": {"epochs": epochs, "batch_size": 32, "fixed": 1, "moving": 2},
        "joint": {"epochs": epochs, "batch_size": 32, "joint": 2, "begin": 0, "remembered": 1},
        "mlnt": {**plain, "burn_in": 1, "rounds": 2, "synthetic": 2, "unlikely": 0.245},
        "cleannet": {**plain, "burn_in": 1, "verifier_steps": 12, "verifier_batch": 8, "references": 3},
        "fsr": {**plain, "burn_in": 1},
        "mentornet_dd": {**plain},
        "deep_self": {**plain, "begin": 1, "num_prototypes": 3},
        "drpl": {**plain, "relabeling": 1, "detection": 2, "begin": 0, "epochs_averaged": 1, "labeled_warmup": 0},
        "mentormix": {**plain, "burn_in": 1},
        "moit_plus": {**plain, "interpolation": 2, "queue_begin": 1, "correction": 1, "bootstrap": 0},
        "disc": {**plain, "warmup": 1, "threshold_memory": 0.5},
        "ncr": {**plain, "warmup": 1},
        "pes": {**plain, "warmup": 1, "refit_stage": 1, "refit_head": 1},
        "pes_semi": {**plain, "warmup": 1, "refit": 1},
        "ssr": {**plain, "num_neighbors": 5},
        "ssr_plus": {**plain, "num_neighbors": 5},
        "dividemix": divide,
        "augdesc": divide,
        "famus": divide,
        "c2d": {"pretrain": features, "dividemix": divide},
        "scan": stages,
        "scan_dividemix": {**stages, "dividemix": divide},
        "scanmix": {
            **divide, **stages, "mild_warmup": 0, "cluster_batch_size": 32, "cluster_rate": 1e-3,
            "severe_cluster_rate": 1e-2,
        },
        "accord": {**plain, "joint_batch": 32, "num_neighbors": 5},
        "linear": {},
        "neighbors": {"tried": (3, 5, 9)},
        "wann": {"fewest": 3, "most": 9},
        "propagate": {"num_neighbors": 5},
        "exact_em": {"epochs": epochs, "steps": 3, "learning_rate": 0.5, "halvings": 10},
    }  # fmt: skip
    return merge(entries.get(name, plain), more)


def tiny_method(name: str, epochs: int = 3, warmup: int = 1) -> Method:
    """A method with the settings above."""
    return build(METHODS[name], settings(name, epochs, warmup), where=name)


def suited(name: str, data: Any, folder: Path | None = None) -> Any:
    """The data, as `TrainingData` or `Examples`, with every third label trusted for a method that needs such labels.

    Examples that must load again are trusted by a table of decisions in `folder`.
    """
    if not METHODS[name].about.needs_trusted:
        return data
    if folder is not None:
        rows = [f"{data.ids[i]},{data.class_names[int(data.labels[i])]},keep" for i in range(0, len(data), 3)]
        (folder / "kept.csv").write_text("\n".join(["id,label,decision", *rows]) + "\n")
        return apply_corrections(data, folder / "kept.csv")
    third = torch.arange(len(data)) % 3 == 0
    return replace(data, trusted=third) if isinstance(data, TrainingData) else data.trusting(third)
