"""The classifier in a folder, however it was stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanmix.config import UserError
from scanmix.export.classifier import ENCODER_FILE, ONNX_FILE, Classifier, load_onnx

if TYPE_CHECKING:
    from pathlib import Path


def load_classifier(folder: Path, device: str = "auto", encoder: str | None = None) -> Classifier:
    """Return the classifier in a folder of `scanmix export`, in a run, or in a copy of a run's `model` folder.

    PyTorch is imported only for safetensors; `device` is for PyTorch, an ONNX file runs on the CPU. `encoder` says
    where the pretrained encoder of a run is now, if it has been moved.

    Raises:
        UserError: there is no classifier, it is damaged, a package is missing, or the device does not fit.
    """
    if (folder / ONNX_FILE).is_file():
        if device not in ("auto", "cpu"):
            raise UserError(f"{folder / ONNX_FILE} runs on the CPU; leave --device out")
        if (folder / ENCODER_FILE).is_file():
            from scanmix.export.encoded import load_encoded

            return load_encoded(folder / ENCODER_FILE, load_onnx(folder / ONNX_FILE), encoder)
        if encoder is not None:
            raise UserError(f"{folder / ONNX_FILE} needs no encoder beside it; leave --encoder out")
        return load_onnx(folder / ONNX_FILE)
    from scanmix.distributed.engine import find_device
    from scanmix.model import load_model

    return load_model(folder, find_device(device), encoder)
