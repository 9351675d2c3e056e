"""A trained classifier for prediction, stored as ONNX or as safetensors.

Legend: N inputs (images or feature vectors), C classes, D features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pydantic.dataclasses

from scanmix.config import STRICT, Count, UserError, install
from scanmix.files import checked, reading
from scanmix.files.sums import check_sum

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from scanmix.data.examples import Kind

ONNX_FILE = "model.onnx"
ENCODER_FILE = "encoder.json"
"""Beside an ONNX file of a head alone: the pretrained encoder whose features it takes."""
INPUTS: Mapping[Kind, str] = {"image": "images", "vector": "vectors"}
"""Name of the input of an ONNX file."""
DTYPES: Mapping[Kind, str] = {"image": "uint8", "vector": "float32"}
OUTPUT = "probabilities"
"""Name of its output."""
BATCH = 512
"""Inputs that go through the network at a time."""


class Classifier(Protocol):
    """Predicts class probabilities of images of one size, or of vectors of one length."""

    @property
    def kind(self) -> Kind:
        """Whether inputs are images or vectors."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; class i is `class_names[i]`."""

    @property
    def channels(self) -> int:
        """1 for gray images, 3 for color; D of vectors."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels; (1, 1) of vectors."""

    def predict_proba(self, inputs: np.ndarray, /) -> np.ndarray:
        """Class probabilities. Shape: (N, channels, H, W) uint8, or (N, D) float32 -> (N, C) float32.

        Vectors may also come as `Examples` keep them, (N, D, 1, 1).
        """


def input_shape(model: Classifier) -> tuple[int, ...]:
    """Return the shape of one input of an exported file: (channels, H, W) for images, (D,) for vectors."""
    return (model.channels,) if model.kind == "vector" else (model.channels, *model.size)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class About:
    """The metadata of an exported file."""

    class_names: list[str]
    channels: Count
    size: tuple[Count, Count]
    kind: Literal["image", "vector"] = "image"
    """Older files do not have it; they are of images."""


ABOUT = frozenset(About.__dataclass_fields__)


@dataclass(frozen=True, eq=False)
class OnnxClassifier:
    """An exported file, run by onnxruntime on the CPU."""

    session: InferenceSession
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    kind: Kind = "image"

    def predict_proba(self, inputs: np.ndarray, /) -> np.ndarray:
        """Class probabilities. Shape: (N, channels, H, W) uint8, (N, D) or (N, D, 1, 1) float32 -> (N, C) float32.

        Raises:
            UserError: the inputs have another type or another shape than in training.
        """
        name, dtype, wanted = INPUTS[self.kind], DTYPES[self.kind], input_shape(self)
        if self.kind == "vector" and inputs.shape[2:] == self.size:
            inputs = inputs[:, :, 0, 0]
        if inputs.dtype != dtype or inputs.shape[1:] != wanted:
            raise UserError(
                f"{name} must be {dtype} of shape (N, {', '.join(map(str, wanted))}) as in training, "
                f"not {inputs.dtype} of shape {inputs.shape}"
            )
        starts = range(0, len(inputs), BATCH)
        batches = [self.session.run([OUTPUT], {name: inputs[start : start + BATCH]})[0] for start in starts]
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *batches])


def load_onnx(path: Path) -> OnnxClassifier:
    """Return the classifier in an exported file; its metadata hold class names, channels, size and kind.

    Raises:
        UserError: onnxruntime is missing, the file is damaged, or ScanMix did not write it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path} needs onnxruntime; install it with: {install('onnx')}") from None
    check_sum(path)
    with reading(path):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    try:
        about = checked(About, json.dumps({name: json.loads(metadata[name]) for name in ABOUT if name in metadata}))
    except (ValueError, RecursionError):
        raise UserError(f"{path} was not written by scanmix: it names no classes, channels and size") from None
    return OnnxClassifier(session, tuple(about.class_names), about.channels, about.size, about.kind)
