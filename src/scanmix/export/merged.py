"""Encoder and head as one ONNX file, where the encoder allows it.

Legend: N pictures, C channels, H height, W width, D features.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scanmix.export.classifier import INPUTS, OUTPUT, load_onnx
from scanmix.export.onnx_file import OPSET, describe_file
from scanmix.features import FrozenEncoder
from scanmix.features.onnx_encoder import split_options
from scanmix.features.preparation import Preparation
from scanmix.files import in_words
from scanmix.model import Model
from scanmix.networks.inference import inference

LARGEST = 1_900_000_000
"""Bytes of a file with its tensors inside: protobuf ends at two gigabytes."""


class _Front(nn.Module):
    """Pictures of the size that needs no resizing: cut, in the encoder's channels, normalized."""

    def __init__(self, preparation: Preparation, *, last: bool = False, half: bool = False) -> None:
        super().__init__()
        self.preparation, self.last, self.half_precision = preparation, last, half

    def forward(self, images: Tensor) -> Tensor:
        """Shape: (N, C, H, W) uint8 -> (N, C, h, w), or with channels last (N, h, w, C)."""
        pixels = self.preparation.normalized(self.preparation.resized(images))
        pixels = pixels.permute(0, 2, 3, 1) if self.last else pixels
        return pixels.half() if self.half_precision else pixels


class _Head(nn.Module):
    """Output of an encoder to probabilities, through features that are rounded as those of the cache."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.predictor, self.views = model.predictor, model.views

    def forward(self, found: Tensor) -> Tensor:
        """Shape: features (N, D), tokens (N, T, D) or maps (N, D, h, w) -> (N, classes)."""
        if found.ndim == 4:
            found = found.mean((2, 3))
        rows = found[:, 0] if found.ndim == 3 else found
        logits: Tensor = self.predictor(self.views.eval_view(rows.float().half().float()))
        return logits.softmax(1)


class _Traced(nn.Module):
    """Front, a network of PyTorch and head."""

    def __init__(self, front: _Front, network: Any, head: _Head) -> None:
        super().__init__()
        self.front, self.network, self.head = front, network, head

    def forward(self, images: Tensor) -> Tensor:
        """Shape: (N, C, H, W) uint8 -> (N, classes)."""
        probabilities: Tensor = self.head(self.network(self.front(images)))
        return probabilities


def write_merged(model: Model, path: Path) -> str:
    """Write one file from pictures to probabilities, as `write_onnx` does; return "" or why that cannot be done.

    Raises:
        UserError: the encoder cannot be opened, or is not the one of the run.
    """
    assert model.encoder is not None  # others are written as they are
    parts = model.encoder.opened.parts
    reason = _reason(parts, model)
    if reason:
        return reason
    (part,) = parts
    try:
        with inference(model.predictor, batch_statistics=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: sizes are constants, which is meant
            _write(part, model, path)
        load_onnx(path)
    except Exception as error:  # exporters fail in many ways on networks of others
        path.unlink(missing_ok=True)
        return f"they could not be joined ({in_words(error)})"
    return ""


def _reason(parts: tuple[FrozenEncoder, ...], model: Model) -> str:
    """Return why an encoder cannot become part of a file, or ""."""
    preparation = parts[0].preparation
    if len(parts) > 1:
        return "several encoders are joined"
    if preparation is None:
        return "the encoder is a function"
    if not preparation.only_cuts(model.size):
        height, width = model.size
        return f"pictures of {height}x{width} pixels have to be resized for the encoder"
    return ""


def _write(part: FrozenEncoder, model: Model, path: Path) -> None:
    """Write the file.

    Raises:
        Exception: of any type, where exporter or encoder do not allow it.
    """
    import onnx

    assert part.preparation is not None  # `_reason` refuses functions
    pictures = torch.zeros(2, model.channels, *model.size, dtype=torch.uint8)
    if part.name.startswith("onnx:"):
        graph = _linked(part, part.preparation, model, pictures, path)
    else:
        whole = _Traced(_Front(part.preparation), part.network, _Head(model))
        _export(whole, pictures, path, INPUTS["image"], OUTPUT, OPSET)
        graph = onnx.load(path)
    describe_file(graph, model)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _linked(part: FrozenEncoder, preparation: Preparation, model: Model, pictures: Tensor, path: Path) -> Any:
    """Return an encoder's graph with a front before and the head behind it.

    Raises:
        ValueError: the graph has a fixed batch, or is too large. Exception: as `_write`.
    """
    import onnx

    place, _ = split_options(part.name.removeprefix("onnx:"))
    encoder = onnx.load(str(Path(place).expanduser()))
    weights = {tensor.name for tensor in encoder.graph.initializer}
    (entry,) = [each for each in encoder.graph.input if each.name not in weights]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    if shape[0] > 0:
        raise ValueError(f"it takes batches of {shape[0]} pictures alone")
    if encoder.ByteSize() > LARGEST:
        raise ValueError("the file would be larger than 2 GB")
    output = part.kind.removeprefix("onnx ")
    (opset,) = [each.version for each in encoder.opset_import if each.domain in ("", "ai.onnx")]
    half = entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    last = shape[1] not in (1, 3) and shape[3] in (1, 3)
    (shown,) = [each for each in encoder.graph.output if each.name == output]
    rank = len(shown.type.tensor_type.shape.dim)
    found = torch.zeros(2, model.inputs).reshape({2: (2, -1), 3: (2, 1, -1), 4: (2, -1, 1, 1)}[rank])
    front = _piece(_Front(preparation, last=last, half=half), pictures, path, (INPUTS["image"], "prepared"), opset)
    head = _piece(_Head(model), found, path, ("found", OUTPUT), opset)
    for graph in (front, head):
        graph.ir_version = encoder.ir_version
    join, prefix = onnx.compose.merge_models, onnx.compose.add_prefix
    encoder = prefix(encoder, "encoder/")
    front, head = prefix(front, "front/", rename_inputs=False), prefix(head, "head/", rename_outputs=False)
    both = join(front, encoder, [("front/prepared", f"encoder/{entry.name}")], outputs=[f"encoder/{output}"])
    return join(both, head, [(f"encoder/{output}", "head/found")])


def _piece(network: nn.Module, example: Tensor, path: Path, names: tuple[str, str], opset: int) -> Any:
    """Return a network as a graph with this input and this output; `path` holds it for a moment."""
    import onnx

    _export(network, example, path, *names, opset)
    return onnx.load(path)


def _export(network: nn.Module, example: Tensor, path: Path, entry: str, output: str, opset: int) -> None:
    torch.onnx.export(
        network.eval(), (example,), path, dynamo=False, opset_version=opset, input_names=[entry],
        output_names=[output], dynamic_axes={entry: {0: "N"}, output: {0: "N"}},
    )  # fmt: skip
