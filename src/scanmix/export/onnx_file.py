"""A model as one ONNX file that takes pixels or vectors and gives probabilities, and the proof that it is the same.

Legend: N inputs (images or feature vectors), C classes, D features.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from scanmix.config import UserError
from scanmix.data.readers import reload
from scanmix.export.classifier import INPUTS, OUTPUT, input_shape, load_onnx
from scanmix.model import Model
from scanmix.networks.inference import inference
from scanmix.training import Run

OPSET = 17
"""Of ONNX 1.12 (2022): old runtimes read it, and newer ones add nothing that is needed."""
TOLERANCE = 1e-4
"""By how much a probability of the file may differ from the network's."""
CHECKED = 200
"""Inputs on which both are compared."""


class Agreement(NamedTuple):
    """How well an exported file does what the network does."""

    difference: float
    """Largest, of all probabilities of all inputs."""
    inputs: str
    """Which were compared: "200 training images"."""


class _Whole(nn.Module):
    """All that `Model.predict_proba` does: normalize, add up the peers' logits, softmax."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.predictor, self.views = model.predictor, model.views

    def forward(self, inputs: Tensor) -> Tensor:
        """Shape: (N, channels, H, W) uint8, or (N, D) float32 -> (N, C)."""
        logits: Tensor = self.predictor(self.views.eval_view(inputs))
        return logits.softmax(1)


def require_onnx() -> None:
    """Refuse before any work is done.

    Raises:
        UserError: onnx or onnxruntime is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs {error.name}; install it with: pip install 'scanmix[onnx]', or say --format safetensors"
        ) from None


def write_onnx(model: Model, path: Path) -> None:
    """Write input "images" (N, channels, H, W) uint8 -> output "probabilities" (N, C) float32, for any N.

    Of a model of vectors the input is "vectors" (N, D) float32. Class names, size, channels and kind go into the
    file's metadata as JSON.
    """
    import onnx

    network, name = _Whole(model), INPUTS[model.kind]
    example = torch.zeros(2, *input_shape(model), dtype=model.views.dtype, device=model.views.mean.device)
    with inference(network, batch_statistics=False), warnings.catch_warnings():
        # The exporter that traces is deprecated and does all that is needed here: the newer one wants another
        # package, takes fifty times as long and warns as well.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network, (example,), path, dynamo=False, opset_version=OPSET, input_names=[name], output_names=[OUTPUT],
            dynamic_axes={name: {0: "N"}, OUTPUT: {0: "N"}},
        )  # fmt: skip
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {name: json.dumps(value) for name, value in about(model).items()})
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def about(model: Model) -> dict[str, str | int | list[str] | list[int]]:
    """Return what a program needs to know of the file, as JSON takes it."""
    return {
        "class_names": list(model.class_names),
        "channels": model.channels,
        "size": list(model.size),
        "kind": model.kind,
        "method": model.method,
    }


def check_onnx(run: Run, path: Path) -> Agreement:
    """Compare a file with the network it was made from, on what the run was trained on where that is there.

    Raises:
        UserError: a probability differs by more than 1e-4.
    """
    inputs, which = _inputs(run)
    difference = float(np.abs(load_onnx(path).predict_proba(inputs) - run.predict_proba(inputs)).max())
    if not difference <= TOLERANCE:  # NaN is no agreement either
        raise UserError(
            f"ONNX and PyTorch disagree by {difference:.1e} on {which} of {run.folder}; nothing was written "
            "(--format safetensors keeps the network as it is)"
        )
    return Agreement(difference, which)


def _inputs(run: Run) -> tuple[np.ndarray, str]:
    """Return up to 200 examples spread over the training set, else as many drawn, and what they are."""
    model = run.model
    shape, noun = (model.channels, *model.size), INPUTS[model.kind]
    try:
        known = reload((run.settings.source or {}).get("train", {})).images
    except UserError:
        known = torch.empty(0)
    if len(known) and tuple(known.shape[1:]) == shape:
        chosen = known[np.linspace(0, len(known) - 1, min(CHECKED, len(known))).astype(int)]
        return chosen.numpy(), f"{len(chosen)} training {noun}"
    return _drawn(model), f"{CHECKED} random {noun} (the training {noun} cannot be loaded again)"


def _drawn(model: Model) -> np.ndarray:
    """Bytes, or normal numbers with the mean and deviation of each feature. Shape: -> (200, ...) as the file takes."""
    draws, shape = np.random.default_rng(0), (CHECKED, *input_shape(model))
    if model.kind == "image":
        return draws.integers(0, 256, shape, dtype=np.uint8)
    mean, std = model.views.mean.cpu().numpy(), model.views.std.cpu().numpy()
    return mean + std * draws.standard_normal(shape, dtype=np.float32)
