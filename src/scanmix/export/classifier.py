"""A trained classifier as prediction sees it, whatever it is stored as.

Legend: N images, C classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scanmix.config import UserError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX_FILE = "model.onnx"
INPUT, OUTPUT = "images", "probabilities"
BATCH = 512
"""Images in the network at a time."""


class Classifier(Protocol):
    """Looks at images of one size and tells how likely each class is."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; class i is `class_names[i]`."""

    @property
    def channels(self) -> int:
        """1 for gray images, 3 for color."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def predict_proba(self, images: np.ndarray, /) -> np.ndarray:
        """Class probabilities. Shape: (N, channels, H, W) uint8 -> (N, C) float32."""


@dataclass(frozen=True, eq=False)
class OnnxClassifier:
    """An exported file, run by onnxruntime on the CPU."""

    session: InferenceSession
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]

    def predict_proba(self, images: np.ndarray, /) -> np.ndarray:
        """Class probabilities. Shape: (N, channels, H, W) uint8 -> (N, C) float32.

        Raises:
            UserError: the images are not uint8, or have other channels or another size than in training.
        """
        wanted = (self.channels, *self.size)
        if images.dtype != np.uint8 or images.shape[1:] != wanted:
            raise UserError(
                f"images must be uint8 of shape (N, {', '.join(map(str, wanted))}) as in training, "
                f"not {images.dtype} of shape {images.shape}"
            )
        starts = range(0, len(images), BATCH)
        batches = [self.session.run([OUTPUT], {INPUT: images[start : start + BATCH]})[0] for start in starts]
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *batches])


def load_classifier(folder: Path, device: str = "auto") -> Classifier:
    """Read what `scanmix export` wrote, a run, or a copy of its `model` folder.

    PyTorch is imported for safetensors only.

    Raises:
        UserError: there is no classifier, it is damaged, or what runs it is missing.
    """
    if (folder / ONNX_FILE).is_file():
        if device not in ("auto", "cpu"):
            raise UserError(f"{folder / ONNX_FILE} runs on the CPU; leave --device out")
        return load_onnx(folder / ONNX_FILE)
    from scanmix.checkpoint import load_model
    from scanmix.engine import find_device

    return load_model(folder, find_device(device))


def load_onnx(path: Path) -> OnnxClassifier:
    """Open an exported file; class names, channels and size stand in its metadata.

    Raises:
        UserError: onnxruntime is missing, or the file is damaged or not one of ours.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path} needs onnxruntime; install it with: pip install 'scanmix[onnx]'") from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    about: dict[str, Any] = session.get_modelmeta().custom_metadata_map
    try:
        names, (height, width) = tuple(json.loads(about["class_names"])), json.loads(about["size"])
        return OnnxClassifier(session, names, int(about["channels"]), (height, width))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} was not written by scanmix: it names no classes, channels and size") from None
