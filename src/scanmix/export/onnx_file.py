"""A model as one ONNX file that maps pixels or vectors to probabilities, and its comparison with the network.

Legend: N inputs (images or feature vectors), C classes, D features.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from scanmix.config import UserError, install
from scanmix.data.readers import reload
from scanmix.export.classifier import INPUTS, OUTPUT, input_shape, load_onnx
from scanmix.model import Model
from scanmix.networks.inference import inference
from scanmix.networks.neighbor_vote import NeighborVote
from scanmix.training import Run

OPSET = 17
"""Version of the operators, that of ONNX 1.12 (2022). Old runtimes read it, and newer versions add nothing needed."""
TOLERANCE = 1e-4
"""Largest allowed difference between a probability of the file and that of the network."""
ROUNDED = 2e-3
"""The same where an encoder is in the file: features that differ in the seventh digit may be rounded to another number
in half precision."""
EXCHANGED = 0.05
"""Share of inputs that may differ by more where training rows vote: two that are all but equally near may take each
other's place."""
CHECKED = 200
"""Inputs on which they are compared."""


class Agreement(NamedTuple):
    """How far an exported file agrees with its network."""

    difference: float
    """Largest difference of all probabilities of these inputs."""
    inputs: str
    """The inputs, in words: "200 training images", or where training rows vote, "95% of 200 training images"."""


class _Whole(nn.Module):
    """What `Model.predict_proba` does as one module: normalize, add up the logits of the networks, softmax."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.predictor, self.views = model.predictor, model.views

    def forward(self, inputs: Tensor) -> Tensor:
        """Return class probabilities. Shape: (N, channels, H, W) uint8, or (N, D) float32 -> (N, C)."""
        logits: Tensor = self.predictor(self.views.eval_view(inputs))
        return logits.softmax(1)


def require_onnx() -> None:
    """Check that the packages for ONNX are there, before any work is done.

    Raises:
        UserError: onnx or onnxruntime is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs {error.name}; install it with: {install('onnx')}, or say --format safetensors"
        ) from None


def write_onnx(model: Model, path: Path) -> None:
    """Write the model as an ONNX file; class names, size, channels and kind go into its metadata as JSON.

    Shape: input "images" (N, channels, H, W) uint8, or "vectors" (N, D) float32, for any N -> output "probabilities"
    (N, C) float32.
    """
    import onnx

    network, name = _Whole(model), INPUTS[model.kind]
    example = torch.zeros(2, *input_shape(model), dtype=model.views.dtype, device=model.views.mean.device)
    with inference(network, batch_statistics=False), warnings.catch_warnings():
        # The tracing exporter is deprecated but sufficient: the newer one needs another package, takes fifty times as
        # long and also warns. revisit: when PyTorch removes `dynamo=False`.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Networks of timm compare sizes while they are traced; whether that mattered is measured in the end.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            network, (example,), path, dynamo=False, opset_version=OPSET, input_names=[name], output_names=[OUTPUT],
            dynamic_axes={name: {0: "N"}, OUTPUT: {0: "N"}},
        )  # fmt: skip
    graph = onnx.load(path)
    describe_file(graph, model)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def describe_file(graph: Any, model: Model) -> None:
    """Put the metadata of a model into an ONNX graph, in the place of what is there."""
    import onnx

    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {name: json.dumps(value) for name, value in about(model).items()})


def opset_of(path: Path) -> int:
    """Return the version of the operators of a file."""
    import onnx

    return int(next(each.version for each in onnx.load(path).opset_import if each.domain in ("", "ai.onnx")))


def about(model: Model) -> dict[str, str | int | list[str] | list[int]]:
    """Return the metadata of the file, in types that JSON has."""
    return {
        "class_names": list(model.class_names),
        "channels": model.channels,
        "size": list(model.size),
        "kind": model.kind,
        "method": model.method,
    }


def check_onnx(run: Run, model: Model, path: Path) -> Agreement:
    """Compare a file with its network on training inputs, or on random ones if the data cannot be loaded again.

    A file that takes features of an encoder gets those of the same pictures.

    Args:
        run: what is exported.
        model: its model.
        path: the file.

    Raises:
        UserError: a probability differs by more than 1e-4, or by more than 2e-3 where an encoder is in the file. Where
            training rows vote, up to a twentieth of the inputs may differ by more.
    """
    inputs, which = _inputs(run, model)
    file, is_whole = load_onnx(path), True
    if model.encoder is not None:
        is_whole = file.kind == "image"
        inputs = inputs if is_whole else model.encoder.vectors(torch.from_numpy(inputs)).numpy()
    differences = np.abs(file.predict_proba(inputs) - model.predict_proba(inputs)).max(1)
    if any(isinstance(head, NeighborVote) for _, head in model.parts()) and np.isfinite(differences).all():
        differences = np.sort(differences)[: len(differences) - int(EXCHANGED * len(differences))]
        which = f"{1 - EXCHANGED:.0%} of {which}"
    difference = float(differences.max())
    tolerance = ROUNDED if model.encoder is not None and is_whole else TOLERANCE
    if not difference <= tolerance:  # NaN is no agreement either
        raise UserError(
            f"ONNX and PyTorch disagree by {difference:.1e} on {which} of {run.folder}; nothing was written "
            "(--format safetensors keeps the network as it is)"
        )
    return Agreement(difference, which)


def _inputs(run: Run, model: Model) -> tuple[np.ndarray, str]:
    """Return up to 200 inputs spread over the training set, or 200 random ones, and what they are in words.

    Shape: -> (200, channels, H, W) uint8, or (200, D, 1, 1) float32 from training and (200, D) if random.
    """
    shape, noun = (model.channels, *model.size), INPUTS[model.kind]
    try:
        images = reload((run.settings.source or {}).get("train", {})).images
    except UserError:
        images = torch.empty(0)
    if len(images) and tuple(images.shape[1:]) == shape:
        chosen = images[np.linspace(0, len(images) - 1, min(CHECKED, len(images))).astype(int)]
        return chosen.numpy(), f"{len(chosen)} training {noun}"
    return _random(model), f"{CHECKED} random {noun} (the training {noun} cannot be loaded again)"


def _random(model: Model) -> np.ndarray:
    """Return random bytes, or normal numbers with the mean and deviation of each feature.

    Shape: -> (200, channels, H, W) uint8, or (200, D) float32.
    """
    draws, shape = np.random.default_rng(0), (CHECKED, *input_shape(model))
    if model.kind == "image":
        return draws.integers(0, 256, shape, dtype=np.uint8)
    mean, std = model.views.mean.cpu().numpy(), model.views.std.cpu().numpy()
    return mean + std * draws.standard_normal(shape, dtype=np.float32)
