"""Settings that suit a data set for which no recipe is shipped: what to set, and why.

The values come from the recipes for digits and for 5,000 Fashion-MNIST images; on other data they are a first guess.
Labels are used only to count classes, since the noise is unknown.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scanmix.config import dotted_keys
from scanmix.data.examples import Examples
from scanmix.doctor.checks import class_counts
from scanmix.methods import METHODS

PUBLISHED_FROM = 20_000
"""From this many images on, training on an accelerator uses the published settings."""
USUAL_NEIGHBORS = 20
"""K, the number of neighbors in the paper."""
FEW_CLASSES = 20
"""Up to this many classes, many negatives of a contrastive batch have the class of their anchor."""


@dataclass(frozen=True)
class Advice:
    """One setting of a suggested recipe: key as for `--set`, value, reason."""

    key: str
    value: Any
    why: str


def advise(examples: Examples, method: str, accelerated: bool) -> tuple[Advice, ...]:
    """Return settings of a method that suit these examples; none if the published settings do.

    Args:
        examples: training data; its labels are only counted.
        method: name of the method.
        accelerated: whether the training device is not a CPU.
    """
    count = len(examples)
    if accelerated and count >= PUBLISHED_FROM:
        return ()
    lines = [*_network(examples), *_views(examples), *_settings(examples, method)]
    known = set(dotted_keys(METHODS[method]))
    return tuple(line for line in lines if line.key.startswith(("network.", "views.")) or line.key in known)


def as_recipe(lines: Sequence[Advice], method: str, head: str) -> str:
    """Return advice as the text of a recipe, each value with its reason; `head` becomes its first comment."""
    sections: dict[str, list[Advice]] = {}
    for line in lines:
        key = line.key if line.key.startswith(("network.", "views.")) else f"settings.{line.key}"
        sections.setdefault(key.rpartition(".")[0], []).append(line)
    text = [f"# {head}", f'method = "{method}"']
    for section, inside in sections.items():
        pairs = [(f"{line.key.rpartition('.')[2]} = {json.dumps(line.value)}", line.why) for line in inside]
        width = max(len(pair) for pair, _ in pairs)
        text += ["", f"[{section}]", *(f"{pair:{width}}  # {why}" for pair, why in pairs)]
    return "\n".join(text) + "\n"


def _network(examples: Examples) -> list[Advice]:
    """Return a network for the size of the images."""
    side = max(examples.size)
    widths = [64, 128] if side < 16 else [32, 64, 128]
    return [
        Advice("network.widths", widths, "the published PreAct-ResNet-18 is for 50,000 images and a GPU"),
        Advice("network.blocks", [1] * len(widths), "one block for each width"),
        Advice("network.stem_stride", 4 if side >= 64 else 2, "makes each image several times cheaper"),
        Advice("network.stem_norm", False, "as where the other values were chosen"),
        Advice("network.final_norm", True, "neighbors are purer with it"),
    ]


def _views(examples: Examples) -> list[Advice]:
    """Return augmentations for the size and colors of the images."""
    side = max(examples.size)
    lines = []
    if side <= 16:
        lines += [
            Advice("views.contrast_scale", [0.5, 1.0], f"a fifth of {side}x{side} pixels shows too little"),
            Advice("views.strong_operations", 2, "four operations leave little of so few pixels"),
            Advice("views.cutout", max(1, 3 * side // 8), "the same"),
        ]
    if examples.channels == 1:
        lines.append(Advice("views.jitter", [0.5, 0.5, 0.0, 0.0], "gray images have no saturation and no hue"))
    if examples.flip:
        lines.append(Advice("views.flip", True, "set to false if a mirrored image means something else"))
    return lines


def _settings(examples: Examples, method: str) -> list[Advice]:
    """Return settings of the method and its pre-training for the number of images and classes."""
    count, classes = len(examples), examples.num_classes
    common = int(statistics.median(class_counts(examples).values()))
    batch = 128 if count < 4000 else 256
    lines = list(LOOPS.get(method, (Advice("epochs", 60, "300 are for 50,000 images and a GPU"),)))
    if common < 2 * USUAL_NEIGHBORS:
        why = f"half of the classes have {common} images or fewer, and K is 20"
        lines.append(Advice("num_neighbors", max(1, min(common // 2, count - 1)), why))
    lines += [
        Advice("pretrain.epochs", max(20, min(100, 1_000_000 // count)), "500 are for a GPU"),
        Advice("pretrain.batch_size", batch, "an epoch of few images should still have some steps"),
        Advice("pretrain.learning_rate", 0.1 if batch == 128 else 0.2, "0.4 is for batches of 512"),
        Advice("pretrain.symmetric", True, "both views are anchors"),
    ]
    if classes <= FEW_CLASSES:
        why = f"one of {classes} negatives has the class of its anchor"
        lines.append(Advice("pretrain.contrast_temperature", 0.2, why))
    lines += [
        Advice("clustering.epochs", 30 if count < 10_000 else 10, "50 are for a tenth of the learning rate"),
        Advice("clustering.learning_rate", 1e-3, "ten times the published one: fewer steps"),
    ]
    if classes > 128:
        lines.append(Advice("clustering.batch_size", 1024, "not smaller than the number of clusters"))
    return lines


LOOPS = {
    "scanmix": (
        Advice("epochs", 30, "300 are for 50,000 images and a GPU"),
        Advice("name_clusters", True, "counts which cluster is which class; warm-up may then be short"),
        Advice("warmup", "50 steps", "ten epochs are too few steps of few images, too many of many"),
        Advice("warmup_rate", 2e-3, "the classifier only bends to the labels"),
        Advice("learning_rate", 5e-3, "0.02 throws the features away where few labels look right"),
        Advice("minimum_steps", 15, "an epoch has so many, however few labels look right"),
        Advice("unlabeled_ramp", 4, "of 300 epochs 16, of 30 fewer"),
    ),
    "dividemix": (
        Advice("epochs", 60, "300 are for 50,000 images and a GPU"),
        Advice("warmup", "120 steps", "ten epochs are too few steps of few images, too many of many"),
        Advice("minimum_steps", 15, "an epoch has so many, however few labels look right"),
        Advice("unlabeled_ramp", 8, "of 300 epochs 16, of 60 fewer"),
    ),
}
"""Settings of the training loop by method; other methods only get the number of epochs."""
